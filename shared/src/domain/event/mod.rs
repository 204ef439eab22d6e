//! The events of this system, as `CloudEvents` 1.0 in structured JSON.
//!
//! [`Event`] is what handlers read. [`Envelope`] is what the outbox, the relay and the brokers carry:
//! they know its id, its key and its sequence, and nothing of orders.

mod canonical;
mod document;

use std::{fmt, str::Utf8Error};

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{
    encoded::Encoded,
    order::{Changes, CustomerId, MAX_VERSION, Order, OrderId},
};

pub use document::Document;

/// The version of the layout of `data`.
pub const SCHEMA_VERSION: u32 = 1;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum EventType {
    /// A new order, at version 1.
    OrderCreated,
    /// Its next version.
    OrderUpdated,
    /// Its last version: the order is gone.
    OrderDeleted,
}

impl EventType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::OrderCreated, Self::OrderUpdated, Self::OrderDeleted];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrderCreated => "OrderCreated",
            Self::OrderUpdated => "OrderUpdated",
            Self::OrderDeleted => "OrderDeleted",
        }
    }

    /// What the history calls it.
    pub const fn action(self) -> &'static str {
        match self {
            Self::OrderCreated => "CREATED",
            Self::OrderUpdated => "UPDATED",
            Self::OrderDeleted => "DELETED",
        }
    }
}

impl EventType {
    /// Whether an event of this type may have this version, with the order in it at that version: a creation is the first
    /// version, a change the order's own, a deletion one beyond the order as it last was.
    fn fits(self, version: i64, of_order: i64) -> bool {
        match self {
            Self::OrderCreated => version == 1 && of_order == 1,
            Self::OrderUpdated => (2..=MAX_VERSION).contains(&version) && of_order == version,
            Self::OrderDeleted => (2..=MAX_VERSION).contains(&version) && of_order == version - 1,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One version of one order, announced. On the wire it is a [`Document`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's identity: the same on every delivery.
    pub id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// When it happened.
    pub time: OffsetDateTime,
    /// The W3C trace that caused it.
    pub traceparent: Option<String>,
    /// The facts.
    pub data: EventData,
}

/// When it happened, who did it, and in which trace.
#[derive(Clone, Debug)]
pub struct Happened {
    /// When.
    pub time: OffsetDateTime,
    /// Who.
    pub performed_by: CustomerId,
    /// The W3C trace that caused it.
    pub traceparent: Option<String>,
}

/// The facts of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventData {
    /// Which order.
    pub order_id: OrderId,
    /// Its version after the change.
    pub version: i64,
    /// Who it belongs to.
    pub customer_id: CustomerId,
    /// Who did it.
    pub performed_by: CustomerId,
    /// Each changed field before and after.
    pub changes: Changes,
    /// The order as answered; for `OrderDeleted`, as it last was.
    pub order: Encoded<Order>,
}

impl Event {
    /// Announces a new order.
    pub fn created(order: Order, happened: Happened) -> Self {
        let changes = Order::changes(None, Some(&order));
        Self::new(EventType::OrderCreated, order.version, changes, Encoded::new(order), happened)
    }

    /// Announces `order` as what has become of `before`.
    pub fn updated(before: &Order, order: Order, happened: Happened) -> Self {
        let changes = Order::changes(Some(before), Some(&order));
        Self::new(EventType::OrderUpdated, order.version, changes, Encoded::new(order), happened)
    }

    /// Announces that an order is gone, one version beyond `last`, as which it last was.
    pub fn deleted(last: Order, happened: Happened) -> Self {
        let changes = Order::changes(Some(&last), None);
        Self::new(EventType::OrderDeleted, last.version + 1, changes, Encoded::new(last), happened)
    }

    fn new(
        event_type: EventType,
        version: i64,
        changes: Changes,
        order: Encoded<Order>,
        Happened { time, performed_by, traceparent }: Happened,
    ) -> Self {
        let (order_id, customer_id) = (order.id, order.customer_id);
        let data = EventData { order_id, version, customer_id, performed_by, changes, order };
        Self { id: Uuid::now_v7(), event_type, time, traceparent, data }
    }

    /// The event as it is stored and sent.
    pub fn to_envelope(&self) -> Envelope {
        Envelope {
            id: self.id,
            event_type: self.event_type.to_string(),
            key: self.data.order_id.get(),
            sequence: self.data.version,
            body: canonical::write(self),
        }
    }

    /// Reads a body from a broker. What is kept of its text is not copied.
    pub fn read(body: &Bytes) -> Result<Self, EventError> {
        let text = ByteString::try_from(body.clone())?;
        match canonical::read(&text) {
            Some(event) => Ok(event),
            None => document::read(&text),
        }
    }
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
impl Event {
    /// The event as the reader of our own writing takes it, and as the reader of any JSON does.
    pub fn read_both_ways(body: &Bytes) -> (Option<Self>, Option<Self>) {
        match ByteString::try_from(body.clone()) {
            Ok(text) => (canonical::read(&text), document::read(&text).ok()),
            Err(_) => (None, None),
        }
    }
}

/// Why a body is no event of ours. None of these heals by itself.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not UTF-8.
    #[error("not an event: {0}")]
    NotText(#[from] Utf8Error),
    /// Not JSON, or not the shape of an event.
    #[error("not an event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Of something else.
    #[error("an event of {0:?}, not of orders")]
    Source(String),
    /// Another version of `CloudEvents`.
    #[error("unsupported specversion {0:?}")]
    Specversion(String),
    /// A newer or older layout of the data.
    #[error("unsupported schemaversion {0}")]
    SchemaVersion(u32),
    /// The parts of the event contradict each other.
    #[error("the event contradicts itself")]
    Inconsistent,
}

/// An event on its way: opaque to the outbox, the relay and the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The event's identity: what consumers recognise a duplicate by.
    pub id: Uuid,
    /// For routing and for metrics.
    pub event_type: String,
    /// Events of one key keep their order.
    pub key: i64,
    /// Grows by one with each event of a key.
    pub sequence: i64,
    /// The whole event, as it is sent.
    pub body: String,
}
