//! Dead letters: events that could not be handled, from every broker alike.

use sha2::{Digest as _, Sha256};
use shared::domain::{
    event::{Envelope, Event},
    order::OrderId,
    tenant::TenantId,
    timestamp,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// A dead letter to store.
#[derive(Debug)]
pub struct NewDeadLetter<'a> {
    /// The event, if its body could be read.
    pub event: Option<&'a Event>,
    /// The tenant of the event, or that which the body names although it cannot be read as an event.
    pub tenant: TenantId,
    /// As received.
    pub body: &'a [u8],
    /// The part that gave up: a handler's name, `parse`, or `consumer`.
    pub source: &'static str,
    /// Why.
    pub reason: &'a str,
    /// How often it was tried.
    pub attempts: i32,
    /// The event system it came from.
    pub broker: &'static str,
}

/// A stored dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// The tenant; the default one if the body names none.
    pub tenant_id: i32,
    /// The event's id, if the body could be read.
    pub event_id: Option<Uuid>,
    /// The event's type.
    pub event_type: Option<String>,
    /// The order it is about.
    pub order_id: Option<i64>,
    /// The order's version.
    pub version: Option<i64>,
    /// As received.
    pub body: Vec<u8>,
    /// The part that gave up: a handler's name, `parse`, `consumer`, or `publish` for the relay.
    pub source: String,
    /// Why.
    pub reason: String,
    /// How often it was tried.
    pub attempts: i32,
    /// The event system it was on.
    pub broker: String,
    /// When it last failed.
    pub failed_at: OffsetDateTime,
    /// When an operator last sent it again; `None` if it has failed since.
    pub redriven_at: Option<OffsetDateTime>,
}

impl DeadLetter {
    /// The event to send again, under its own id. `None` if the body is not text, which no broker takes.
    ///
    /// A newer worker may be able to read a body that this one cannot. Its id is the one in the body, or a hash of the body,
    /// so that consumers recognise it if it is sent twice.
    pub fn to_envelope(&self) -> Option<Envelope> {
        let body = String::from_utf8(self.body.clone()).ok()?;
        let id = self.event_id.or_else(|| read_id(&body)).unwrap_or_else(|| hash_id(&self.body));
        Some(Envelope {
            id,
            event_type: self.event_type.clone().unwrap_or_else(|| "unknown".to_owned()),
            key: self.order_id.unwrap_or_default(),
            sequence: self.version.unwrap_or_default(),
            position: None,
            body,
        })
    }

    /// The dead letter as JSON. The body is JSON if it can be read as such, else text.
    pub fn to_json(&self) -> serde_json::Value {
        let text = String::from_utf8_lossy(&self.body);
        let body = serde_json::from_str(&text).unwrap_or_else(|_| serde_json::Value::from(text.as_ref()));
        serde_json::json!({
            "id": self.id,
            "tenant_id": self.tenant_id,
            "event_id": self.event_id,
            "event_type": self.event_type,
            "order_id": self.order_id,
            "version": self.version,
            "source": self.source,
            "reason": self.reason,
            "attempts": self.attempts,
            "broker": self.broker,
            "failed_at": timestamp::format(self.failed_at),
            "redriven_at": self.redriven_at.map(timestamp::format),
            "body": body,
        })
    }
}

fn read_id(body: &str) -> Option<Uuid> {
    serde_json::from_str::<serde_json::Value>(body).ok()?.get("id")?.as_str()?.parse().ok()
}

fn hash_id(body: &[u8]) -> Uuid {
    let hash = Sha256::digest(body);
    uuid::Builder::from_custom_bytes(std::array::from_fn(|at| hash[at])).into_uuid()
}

/// Selects dead letters. A condition that is not set matches all.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    /// Only these numbers.
    pub ids: Option<Vec<i64>>,
    /// The part that gave up.
    pub source: Option<String>,
    /// The event's type.
    pub event_type: Option<String>,
    /// The order.
    pub order: Option<OrderId>,
    /// Failed at or after this time.
    pub since: Option<OffsetDateTime>,
    /// Failed before this time.
    pub until: Option<OffsetDateTime>,
    /// Only those that were not sent again since they failed.
    pub open: bool,
    /// The tenant.
    pub tenant: Option<TenantId>,
}
