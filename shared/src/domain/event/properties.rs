//! Properties of events.

use bytes::Bytes;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Event, EventType, Happened};
use crate::domain::order::{CustomerKey, MAX_VERSION, MOVES, Metadata, Order, OrderLine};

fn id<T: TryFrom<i64> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    (1..=i64::MAX).prop_map(|id| T::try_from(id).unwrap_or_else(|_| unreachable!("it is positive")))
}

/// The version of an order that has changed and may change again.
fn version() -> impl Strategy<Value = i64> {
    prop_oneof![Just(2), Just(MAX_VERSION - 1), 2..MAX_VERSION]
}

fn time() -> impl Strategy<Value = OffsetDateTime> {
    (-62_135_596_800_000_000..253_402_300_800_000_000_i64)
        .prop_map(|micros| OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap())
}

fn line() -> impl Strategy<Value = OrderLine> {
    (id(), id(), 1..=1000, 0..100_000_000_i64).prop_map(|(id, product_id, quantity, cents)| {
        let unit_price = format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap();
        OrderLine { id, product_id, quantity, unit_price }
    })
}

/// Any text, also such as clients cannot send, and often with what is no character.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a\"\\\\\u{fffd}-\u{ffff}]{0,8}"]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    prop::collection::hash_map(text(), text(), 0..4).prop_map(|entries| entries.into_iter().collect())
}

prop_compose! {
    fn order()(
        id in id(), tenant in 1..=3_i32, customer_id in id(), status in 0..MOVES.len(), version in version(),
        created_at in time(), updated_at in time(), lines in prop::collection::vec(line(), 0..4),
        reference in prop::option::of(any::<String>()), metadata in metadata(),
    ) -> Order {
        let total_amount = lines.iter().map(OrderLine::total).sum();
        let (order_date, status) = (created_at.date(), MOVES[status].0);
        Order {
            id, tenant_id: tenant.try_into().unwrap(), customer_id, order_date, status, total_amount, version, created_at, updated_at, lines, reference, metadata,
        }
    }
}

/// Of the order's tenant, or of another one.
fn who() -> impl Strategy<Value = CustomerKey> {
    (1..=3_i32, id()).prop_map(|(tenant, id)| CustomerKey { tenant: tenant.try_into().unwrap(), id })
}

prop_compose! {
    fn event()(
        before in order(), after in order(), event_type in select(&EventType::ALL), time in time(), performed_by in who(),
        traceparent in prop::option::of("[ -~]{0,60}"),
    ) -> Event {
        let happened = Happened { time, performed_by, traceparent };
        match event_type {
            EventType::OrderCreated => Event::created(Order { version: 1, ..after }, happened),
            EventType::OrderUpdated => Event::updated(&before, after, happened),
            EventType::OrderDeleted => Event::deleted(after, happened),
        }
    }
}

proptest! {
    #[test]
    fn an_event_reads_as_it_was_written(event in event()) {
        let body = event.to_envelope().body;
        prop_assert!(!body.contains(['\u{fffe}', '\u{ffff}']), "{}", body);
        let read = Event::read(&Bytes::from(body.clone())).unwrap();
        prop_assert_eq!(&read, &event);
        prop_assert_eq!(read.to_envelope().body, body);
    }

    #[test]
    fn an_event_names_the_tenant_of_who_did_it_if_the_order_is_of_another_one(order in order(), performed_by in who(), time in time()) {
        let tenant = order.tenant_id;
        let happened = Happened { time, performed_by, traceparent: None };
        let event = Event::created(Order { version: 1, ..order }, happened);
        let written: Value = serde_json::from_str(&event.to_envelope().body).unwrap();
        let named = (performed_by.tenant != tenant).then(|| json!(performed_by.tenant));
        prop_assert_eq!(written["data"].get("performed_by_tenant"), named.as_ref());
        prop_assert_eq!(&written["data"]["performed_by"], &json!(performed_by.id));
    }

    #[test]
    fn an_event_by_a_tenant_that_cannot_be_is_refused(event in event(), number in prop_oneof![..=0_i64, (1_i64 << 31)..]) {
        let mut written: Value = serde_json::from_str(&event.to_envelope().body).unwrap();
        written["data"]["performed_by_tenant"] = json!(number);
        prop_assert!(Event::read(&Bytes::from(written.to_string())).is_err());
    }
}
