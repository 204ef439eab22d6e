//! The routes of the event feed: pages, long polls, streams of server-sent events, and their tickets.
//!
//! What is read, and by whom, is in `crate::feed`.

use std::time::Duration;

mod access;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod openapi;
mod page;
mod problem;
mod query;
pub mod read;
mod stream;
pub mod ticket;

/// The route of pages and streams.
pub const ROUTE: &str = "/api/v1/events";
/// The longest time that a request for a page can wait for an event.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
