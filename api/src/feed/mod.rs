//! The event feed: the log of all changes, for readers who remember how far they have come. Nothing here knows HTTP.
//!
//! The relay gives each committed event a position (`log_sequence` of the migrations). A reader's [`Cursor`](CursorKeys) names a
//! position, signed, so readers start and stop as they like, and all of them see the same events in the same order.
//!
//! One task a process reads the end of the log (`tail`), and only while somebody waits for it. It keeps the recent events in
//! memory (`ring`), from which all readers that have caught up are served; a reader that is further behind reads pages from the
//! database until it reaches them (`reader`).

mod cursor;
mod error;
mod event;
mod handle;
mod metrics;
mod reader;
mod ring;
mod settings;
mod streams;
mod tail;
mod tickets;

pub use cursor::{CursorKeys, FeedScope};
pub use error::FeedError;
pub use event::{EventFilter, FeedEvent};
pub use handle::{Feed, FeedConfig, FeedStart};
pub use metrics::count_bytes;
pub use reader::{FeedBatch, FeedReader};
pub use settings::FeedSettings;
pub use streams::{OpenStream, TooManyStreams};
pub use tickets::{StreamTicket, TICKET_LIFETIME, TicketError};
