//! An event as any JSON that says so.

use std::borrow::Cow;

use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Event, EventData, EventError, EventType, SCHEMA_VERSION};
use crate::domain::{
    encoded::Encoded,
    order::{ChangedFields, Changes, CustomerId, Order, OrderId},
    timestamp,
};

pub(super) const SPECVERSION: &str = "1.0";
pub(super) const SOURCE: &str = "/orders";

/// The document that is an event.
#[derive(Deserialize, ToSchema)]
#[schema(as = Event)]
pub struct Document<'a> {
    /// Always `1.0`.
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    /// The event's identity: the same on every delivery.
    id: Uuid,
    /// Always `/orders`.
    #[serde(borrow)]
    source: Cow<'a, str>,
    /// What happened.
    #[serde(rename = "type")]
    event_type: EventType,
    /// The order's id as text.
    #[serde(borrow)]
    subject: Cow<'a, str>,
    /// When it happened.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    time: OffsetDateTime,
    /// Always `application/json`.
    #[expect(dead_code, reason = "there is nothing to choose; it is in the schema, and must be there")]
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    /// The version as text of twenty digits, so that text order is number order.
    #[serde(borrow)]
    sequence: Cow<'a, str>,
    /// Events of one key are in order by `sequence`: the order's id as text.
    #[serde(borrow)]
    partitionkey: Cow<'a, str>,
    /// The W3C trace that caused it.
    #[serde(default)]
    traceparent: Option<String>,
    /// The version of the layout of `data`.
    schemaversion: u32,
    /// The facts.
    #[serde(borrow)]
    data: Data<'a>,
}

/// The facts of an event.
#[derive(Deserialize, ToSchema)]
#[schema(as = EventData)]
struct Data<'a> {
    /// Which order.
    order_id: OrderId,
    /// Its version after the change.
    #[schema(minimum = 1)]
    version: i64,
    /// Who it belongs to.
    customer_id: CustomerId,
    /// Who did it.
    performed_by: CustomerId,
    /// Each changed field before and after.
    #[serde(borrow)]
    #[schema(value_type = ChangedFields)]
    changes: &'a RawValue,
    /// The order as answered; for `OrderDeleted`, as it last was.
    #[serde(borrow)]
    #[schema(value_type = Order)]
    order: &'a RawValue,
}

/// Reads an event from any JSON; its parts share the memory of `text`.
pub(super) fn read(text: &ByteString) -> Result<Event, EventError> {
    let document: Document<'_> = serde_json::from_str(text)?;
    if document.specversion != SPECVERSION {
        return Err(EventError::Specversion(document.specversion.into_owned()));
    }
    if document.source != SOURCE {
        return Err(EventError::Source(document.source.into_owned()));
    }
    if document.schemaversion != SCHEMA_VERSION {
        return Err(EventError::SchemaVersion(document.schemaversion));
    }
    let Data { order_id, version, customer_id, performed_by, changes, order } = document.data;
    let order: Encoded<Order> = Encoded::read(text.slice_ref(order.get()))?;
    let says = |text: &str, number: i64| text.parse() == Ok(number);
    if !document.event_type.fits(version, order.version)
        || order.id != order_id
        || !says(&document.subject, order_id.get())
        || !says(&document.partitionkey, order_id.get())
        || !says(&document.sequence, version)
    {
        return Err(EventError::Inconsistent);
    }
    let changes = Changes::read(text.slice_ref(changes.get()))?;
    Ok(Event {
        id: document.id,
        event_type: document.event_type,
        time: document.time,
        traceparent: document.traceparent,
        data: EventData { order_id, version, customer_id, performed_by, changes, order },
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::domain::{
        event::Happened,
        order::{LineId, MAX_QUANTITY, MAX_VERSION, Money, OrderLine},
    };

    fn order() -> Order {
        serde_json::from_value(json!({
            "id": 7, "customer_id": 123, "order_date": "2025-01-20", "status": "PENDING", "total_amount": "25.50", "version": 1,
            "created_at": "2025-01-20T10:00:00.123456Z", "updated_at": "2025-01-20T10:00:00.123456Z",
            "lines": [{"id": 9, "product_id": 1001, "quantity": 1, "unit_price": "25.50"}],
        }))
        .unwrap()
    }

    fn event(traceparent: Option<&str>) -> Event {
        let happened = Happened {
            time: datetime!(2025-01-20 10:00:00.123456 UTC),
            performed_by: CustomerId::try_from(5).unwrap(),
            traceparent: traceparent.map(str::to_owned),
        };
        Event::created(order(), happened)
    }

    fn reread(text: &Value) -> Result<Event, EventError> {
        Event::read(&Bytes::from(text.to_string()))
    }

    #[test]
    fn an_event_reads_as_it_was_written() {
        for trace in [None, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), Some("\"\\\n")] {
            let event = event(trace);
            let body = Bytes::from(event.to_envelope().body);
            assert_eq!(Event::read(&body).unwrap(), event);
            let written: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(written["traceparent"].as_str(), trace);
            assert_eq!(written["sequence"], "00000000000000000001");
            assert_eq!(written["data"]["order"], serde_json::from_str::<Value>(&order().to_json()).unwrap());
        }
    }

    /// What bounds the relay's pages of 500 events, and a page of the history, whose entries hold the changes alone.
    #[test]
    fn the_largest_event_takes_less_than_20_kb() {
        let mut before = order();
        let line = OrderLine {
            quantity: MAX_QUANTITY,
            unit_price: Money::MAX_UNIT_PRICE,
            ..before.lines[0].clone()
        };
        let id = |id: i64| LineId::try_from(i64::MAX - id).unwrap();
        before.lines = (0..50).map(|place| OrderLine { id: id(place), ..line.clone() }).collect();
        for line in &mut before.lines {
            line.product_id = i64::MAX.try_into().unwrap();
        }
        let mut after = Order { version: 2, ..before.clone() };
        after.lines.reverse();
        let happened =
            Happened { time: before.created_at, performed_by: before.customer_id, traceparent: None };
        let event = Event::updated(&before, after, happened);
        let (body, changes) = (event.to_envelope().body, event.data.changes);
        assert!(body.len() < 20_000, "{}", body.len());
        assert!(changes.json().len() < 11_000, "{}", changes.json().len());
    }

    #[test]
    fn the_version_of_an_event_fits_its_type_and_its_order() {
        let read = |event_type: &str, version: i64, of_order: i64| {
            let mut body: Value = serde_json::from_str(&event(None).to_envelope().body).unwrap();
            body["type"] = json!(event_type);
            body["data"]["version"] = json!(version);
            body["data"]["order"]["version"] = json!(of_order);
            body["sequence"] = json!(format!("{version:020}"));
            // As it is written here, and as anybody else may write it.
            let canonical = Event::read(&Bytes::from(body.to_string())).is_ok();
            assert_eq!(Event::read(&Bytes::from(format!(" {body}"))).is_ok(), canonical, "{body}");
            canonical
        };
        for (event_type, version, of_order, fits) in [
            ("OrderCreated", 1, 1, true),
            ("OrderCreated", 2, 2, false),
            ("OrderCreated", i64::MAX, i64::MAX, false),
            ("OrderUpdated", 2, 2, true),
            ("OrderUpdated", 1, 1, false),
            ("OrderUpdated", 3, 2, false),
            ("OrderUpdated", MAX_VERSION, MAX_VERSION, true),
            ("OrderUpdated", i64::MAX, i64::MAX, false),
            ("OrderDeleted", 2, 1, true),
            ("OrderDeleted", 2, 2, false),
            ("OrderDeleted", 1, 0, false),
            ("OrderDeleted", MAX_VERSION, MAX_VERSION - 1, true),
            ("OrderDeleted", i64::MAX, MAX_VERSION, false),
            ("OrderDeleted", i64::MIN, i64::MAX, false),
        ] {
            assert_eq!(read(event_type, version, of_order), fits, "{event_type} {version} {of_order}");
        }
    }

    #[test]
    fn a_body_that_contradicts_itself_or_is_of_something_else_is_no_event() {
        let good: Value = serde_json::from_str(&event(None).to_envelope().body).unwrap();
        assert!(reread(&good).is_ok());
        for (pointer, value) in [
            ("/subject", json!("8")),
            ("/partitionkey", json!("")),
            ("/sequence", json!("00000000000000000002")),
            ("/data/version", json!(0)),
            ("/data/order_id", json!(8)),
            ("/source", json!("/invoices")),
            ("/specversion", json!("0.3")),
            ("/schemaversion", json!(2)),
            ("/time", json!("yesterday")),
            ("/time", json!("9999-12-31T23:59:59-23:59")),
            ("/time", json!("0000-01-01T00:00:00Z")),
            ("/data/changes", json!({"status": 1})),
            ("/data/order/lines/0/unit_price", json!(25.5)),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            assert!(reread(&bad).is_err(), "{pointer}");
        }
        for (field, _) in good.as_object().unwrap() {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(field);
            assert!(reread(&bad).is_err(), "without {field}");
        }
        assert!(matches!(Event::read(&Bytes::from_static(b"{\"\xff\":1}")), Err(EventError::NotText(_))));
    }
}
