//! The events of this system, as `CloudEvents` 1.0 in structured JSON.
//!
//! [`Event`] is what handlers read. [`Envelope`] is what the outbox, the relay and the brokers carry:
//! they know its id, its key and its sequence, and nothing of orders.

mod document;
mod envelope;
mod event_type;
mod noncharacters;
mod order_event;
#[cfg(test)]
mod properties;

pub use document::{Document, EventData, SCHEMA_VERSION};
pub use envelope::Envelope;
pub use event_type::EventType;
pub use order_event::{Event, EventError, Happened, find_tenant};
