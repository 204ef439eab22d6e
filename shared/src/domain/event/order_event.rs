//! An event as handlers read it and as the API announces it.

use std::{borrow::Cow, str::Utf8Error};

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    document::{DATA_CONTENT_TYPE, Document, EventData, SCHEMA_VERSION, SOURCE, SPECVERSION},
    envelope::Envelope,
    event_type::EventType,
    noncharacters::escape_noncharacters,
};
use crate::domain::{
    encoded::Encoded,
    order::{Changes, CustomerKey, Order, OrderKey},
    tenant::TenantId,
};

/// One version of one order, announced. Its JSON is a [`Document`].
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

/// When a change happened, who made it, and in which trace.
#[derive(Clone, Debug)]
pub struct Happened {
    /// When.
    pub time: OffsetDateTime,
    /// Who, in its own tenant, which may be another one than that of the order.
    pub performed_by: CustomerKey,
    /// The W3C trace that caused it.
    pub traceparent: Option<String>,
}

impl Event {
    /// Announces a new order.
    pub fn created(order: Order, happened: Happened) -> Self {
        let order = Encoded::new(order);
        let changes = Changes::between(None, Some(order.json()));
        Self::new(EventType::OrderCreated, order.version, changes, order, happened)
    }

    /// Announces the next version of an order.
    pub fn updated(before: &Order, order: Order, happened: Happened) -> Self {
        let order = Encoded::new(order);
        let changes = Changes::between(Some(&before.to_json()), Some(order.json()));
        Self::new(EventType::OrderUpdated, order.version, changes, order, happened)
    }

    /// Announces that an order is gone. The event's version is one more than that of `last`, the order as it last was.
    pub fn deleted(last: Order, happened: Happened) -> Self {
        let last = Encoded::new(last);
        let changes = Changes::between(Some(last.json()), None);
        Self::new(EventType::OrderDeleted, last.version + 1, changes, last, happened)
    }

    fn new(
        event_type: EventType,
        version: i64,
        changes: Changes,
        order: Encoded<Order>,
        Happened { time, performed_by, traceparent }: Happened,
    ) -> Self {
        let (order_id, customer_id) = (order.id, order.customer_id);
        let CustomerKey { tenant, id: performed_by } = performed_by;
        let performed_by_tenant = (tenant != order.tenant_id).then_some(tenant);
        let data =
            EventData { order_id, version, customer_id, performed_by, performed_by_tenant, changes, order };
        Self { id: Uuid::now_v7(), event_type, time, traceparent, data }
    }

    /// The tenant of the order.
    pub fn tenant(&self) -> TenantId {
        self.data.order.tenant_id
    }

    /// What the order is found by.
    pub fn order_key(&self) -> OrderKey {
        OrderKey { tenant: self.tenant(), id: self.data.order_id }
    }

    /// The event as it is stored and sent.
    pub fn to_envelope(&self) -> Envelope {
        let key = self.data.order_id.get();
        let document = Document {
            specversion: SPECVERSION.into(),
            id: self.id,
            source: SOURCE.into(),
            event_type: self.event_type,
            subject: key.to_string().into(),
            time: self.time,
            datacontenttype: DATA_CONTENT_TYPE.into(),
            sequence: format!("{:020}", self.data.version).into(),
            partitionkey: key.to_string().into(),
            tenantid: (!self.tenant().is_default()).then(|| self.tenant().to_string().into()),
            traceparent: self.traceparent.clone(),
            schemaversion: SCHEMA_VERSION,
            data: Cow::Borrowed(&self.data),
        };
        let body = serde_json::to_string(&document).expect("an event can be written as JSON");
        Envelope {
            id: self.id,
            event_type: self.event_type.to_string(),
            key,
            sequence: self.data.version,
            position: None,
            body: escape_noncharacters(body),
        }
    }

    /// Reads a body from a broker.
    pub fn read(body: &Bytes) -> Result<Self, EventError> {
        let document: Document<'_> = serde_json::from_str(std::str::from_utf8(body)?)?;
        if document.specversion != SPECVERSION {
            return Err(EventError::Specversion(document.specversion.into_owned()));
        }
        if document.source != SOURCE {
            return Err(EventError::Source(document.source.into_owned()));
        }
        if document.schemaversion != SCHEMA_VERSION {
            return Err(EventError::SchemaVersion(document.schemaversion));
        }
        let tenant = match document.tenantid {
            Some(text) => parse_tenant(&text).ok_or(EventError::Inconsistent)?,
            None => TenantId::DEFAULT,
        };
        let mut data = document.data.into_owned();
        data.order = data.order.with_unwritten(|order| order.tenant_id = tenant);
        let is_number = |text: &str, number: i64| text.parse() == Ok(number);
        let order_id = data.order_id.get();
        if !document.event_type.allows_versions(data.version, data.order.version)
            || data.order.id != data.order_id
            || !is_number(&document.subject, order_id)
            || !is_number(&document.partitionkey, order_id)
            || !is_number(&document.sequence, data.version)
        {
            return Err(EventError::Inconsistent);
        }
        Ok(Self {
            id: document.id,
            event_type: document.event_type,
            time: document.time,
            traceparent: document.traceparent,
            data,
        })
    }
}

/// The tenant that a body names, although it may be no event that can be read. `None` if it names none.
pub fn find_tenant(body: &[u8]) -> Option<TenantId> {
    #[derive(serde::Deserialize)]
    struct OfTenant<'a> {
        #[serde(borrow)]
        tenantid: Cow<'a, str>,
    }
    parse_tenant(&serde_json::from_slice::<OfTenant<'_>>(body).ok()?.tenantid)
}

/// Reads what is written for every tenant but the default one.
fn parse_tenant(text: &str) -> Option<TenantId> {
    let id: i32 = text.parse().ok().filter(|id: &i32| id.to_string() == text)?;
    TenantId::try_from(id).ok()
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::domain::order::{
        LineId, MAX_METADATA_ENTRIES, MAX_METADATA_KEY, MAX_METADATA_VALUE, MAX_QUANTITY, MAX_REFERENCE,
        MAX_VERSION, Metadata, Money, OrderLine,
    };

    fn order() -> Order {
        serde_json::from_value(json!({
            "id": 7, "customer_id": 123, "order_date": "2025-01-20", "status": "PENDING", "total_amount": "25.50", "version": 1,
            "created_at": "2025-01-20T10:00:00.123456Z", "updated_at": "2025-01-20T10:00:00.123456Z",
            "lines": [{"id": 9, "product_id": 1001, "quantity": 1, "unit_price": "25.50"}],
            "reference": "PO-4711", "metadata": {"color": "red"},
        }))
        .unwrap()
    }

    fn event(traceparent: Option<&str>) -> Event {
        let happened = Happened {
            time: datetime!(2025-01-20 10:00:00.123456 UTC),
            performed_by: CustomerKey { tenant: TenantId::DEFAULT, id: 5.try_into().unwrap() },
            traceparent: traceparent.map(str::to_owned),
        };
        Event::created(order(), happened)
    }

    /// The bytes that brokers carry and the log keeps.
    const GOLDEN: &str = concat!(
        r#"{"specversion":"1.0","id":"01890a5d-ac96-774b-bcce-b302099a8057","source":"/orders","type":"OrderCreated","#,
        r#""subject":"7","time":"2025-01-20T10:00:00.123456Z","datacontenttype":"application/json","#,
        r#""sequence":"00000000000000000001","partitionkey":"7","traceparent":"00-\"-01","schemaversion":1,"#,
        r#""data":{"order_id":7,"version":1,"customer_id":123,"performed_by":5,"changes":{"#,
        r#""customer_id":{"from":null,"to":123},"#,
        r#""lines":{"from":null,"to":[{"id":9,"product_id":1001,"quantity":1,"unit_price":"25.50"}]},"#,
        r#""metadata":{"from":null,"to":{"color":"red"}},"order_date":{"from":null,"to":"2025-01-20"},"#,
        r#""reference":{"from":null,"to":"PO-4711"},"status":{"from":null,"to":"PENDING"},"#,
        r#""total_amount":{"from":null,"to":"25.50"}},"order":{"id":7,"customer_id":123,"#,
        r#""order_date":"2025-01-20","status":"PENDING","total_amount":"25.50","version":1,"#,
        r#""created_at":"2025-01-20T10:00:00.123456Z","updated_at":"2025-01-20T10:00:00.123456Z","#,
        r#""lines":[{"id":9,"product_id":1001,"quantity":1,"unit_price":"25.50"}],"#,
        r#""reference":"PO-4711","metadata":{"color":"red"}}}}"#,
    );

    #[test]
    fn an_event_is_written_with_its_fields_in_order_and_without_spaces() {
        let id = Uuid::try_parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
        let event = Event { id, ..event(Some("00-\"-01")) };
        assert_eq!(event.to_envelope().body, GOLDEN);
        assert_eq!(Event::read(&Bytes::from_static(GOLDEN.as_bytes())).unwrap(), event);
    }

    #[test]
    fn an_event_names_its_tenant_unless_that_is_the_default_one() {
        let order = Order { tenant_id: TenantId::try_from(2).unwrap(), ..order() };
        let happened = Happened { time: order.created_at, performed_by: order.owner(), traceparent: None };
        let event = Event::deleted(order, happened);
        let body = event.to_envelope().body;
        let read = Event::read(&Bytes::from(body.clone())).unwrap();
        assert_eq!((&read, read.tenant().get()), (&event, 2));
        assert_eq!(read.to_envelope().body, body);
        let written: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(written["tenantid"], "2");
        assert_eq!(written["data"]["order"].get("tenant_id"), None);
        assert_eq!(find_tenant(body.as_bytes()), Some(read.tenant()));

        let mut written: Value = serde_json::from_str(&self::event(None).to_envelope().body).unwrap();
        assert_eq!(written.get("tenantid"), None);
        assert!(reread(&written).unwrap().tenant().is_default());
        for wrong in
            [json!("0"), json!("-2"), json!("02"), json!("+2"), json!("2147483648"), json!(""), json!(2)]
        {
            written["tenantid"] = wrong;
            assert!(reread(&written).is_err(), "{written}");
            assert_eq!(find_tenant(written.to_string().as_bytes()), None);
        }
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

    /// SQS takes messages of 256 KiB. The bounds of pages of events are those of the readers, in bytes.
    #[test]
    fn the_largest_event_takes_less_than_220_kb() {
        // What takes most in an event: an escape of six bytes.
        let text = |first: char, length| first.to_string() + &"\u{ffff}".repeat(length - 1);
        let metadata = |value: char| -> Metadata {
            ('a'..)
                .take(MAX_METADATA_ENTRIES)
                .map(|key| (text(key, MAX_METADATA_KEY), text(value, MAX_METADATA_VALUE)))
                .collect()
        };
        let mut before =
            Order { reference: Some(text('a', MAX_REFERENCE)), metadata: metadata('a'), ..order() };
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
        let mut after = Order {
            version: 2,
            reference: Some(text('b', MAX_REFERENCE)),
            metadata: metadata('b'),
            ..before.clone()
        };
        after.lines.reverse();
        let happened = Happened { time: before.created_at, performed_by: before.owner(), traceparent: None };
        let event = Event::updated(&before, after, happened);
        let (body, changes) = (event.to_envelope().body, event.data.changes);
        assert!(body.len() < 220_000, "{}", body.len());
        assert!(changes.json().len() < 100_000, "{}", changes.json().len());
    }

    #[test]
    fn the_version_of_an_event_agrees_with_its_type_and_its_order() {
        let is_event = |event_type: &str, version: i64, order_version: i64| {
            let mut body: Value = serde_json::from_str(&event(None).to_envelope().body).unwrap();
            body["type"] = json!(event_type);
            body["data"]["version"] = json!(version);
            body["data"]["order"]["version"] = json!(order_version);
            body["sequence"] = json!(format!("{version:020}"));
            reread(&body).is_ok()
        };
        for (event_type, version, order_version, expected) in [
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
            assert_eq!(
                is_event(event_type, version, order_version),
                expected,
                "{event_type} {version} {order_version}"
            );
        }
    }

    #[test]
    fn a_body_that_contradicts_itself_or_is_not_of_orders_is_no_event() {
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
