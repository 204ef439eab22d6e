//! An event for those who only carry it.

use uuid::Uuid;

/// An event on its way: the outbox, the relay and the brokers do not look into its body.
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
    /// Its position in the log. `None` for what does not come from there, such as a redriven dead letter.
    pub position: Option<i64>,
    /// The whole event, as it is sent.
    pub body: String,
}
