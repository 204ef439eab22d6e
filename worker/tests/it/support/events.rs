//! Events and stored orders.

use bytes::Bytes;
use shared::{
    cache::CacheWrite,
    domain::{
        clock::Clock,
        event::{Event, EventType, Happened},
        order::{CustomerId, CustomerKey, LineId, Metadata, Money, Order, OrderLine, OrderStatus, ProductId},
        tenant::TenantId,
    },
};
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use worker::handlers::HandlerEvent;

use super::order_id;

/// Who owns all of it.
pub(crate) fn customer() -> CustomerId {
    CustomerId::try_from(123).expect("a positive number")
}

/// An order of two lines as it is at a version.
pub(crate) fn order(id: i64, version: i64) -> Order {
    let now = Clock::System.now();
    let line = |line: i64, quantity, price: &str| OrderLine {
        id: LineId::try_from(id * 10 + line).expect("a positive number"),
        product_id: ProductId::try_from(1000 + line).expect("a positive number"),
        quantity,
        unit_price: price.parse().expect("an amount"),
    };
    let lines = vec![line(1, 2, "25.50"), line(2, 1, "15.00")];
    Order {
        id: order_id(id),
        tenant_id: TenantId::DEFAULT,
        customer_id: customer(),
        order_date: now.date(),
        status: if version == 1 { OrderStatus::Pending } else { OrderStatus::Shipped },
        total_amount: lines.iter().map(OrderLine::total).sum::<Money>(),
        version,
        created_at: now,
        updated_at: now,
        lines,
        reference: None,
        metadata: Metadata::default(),
    }
}

/// The event of a version: a creation for the first, else an update.
pub(crate) fn event(id: i64, version: i64) -> Event {
    event_at(id, version, Clock::System.now())
}

/// The same, which happened at a given time.
pub(crate) fn event_at(id: i64, version: i64, time: OffsetDateTime) -> Event {
    let order = order(id, version);
    if version == 1 {
        Event::created(order, happened(time))
    } else {
        let before = Order { status: OrderStatus::Pending, ..order.clone() };
        Event::updated(&before, order, happened(time))
    }
}

/// The event of a deletion.
pub(crate) fn deletion(id: i64, version: i64) -> Event {
    Event::deleted(order(id, version - 1), happened(Clock::System.now()))
}

fn happened(time: OffsetDateTime) -> Happened {
    Happened {
        time,
        performed_by: CustomerKey { tenant: TenantId::DEFAULT, id: customer() },
        traceparent: None,
    }
}

/// As a handler gets it, on its first attempt and at once.
pub(crate) fn fresh(event: Event) -> HandlerEvent {
    HandlerEvent { received_at: event.time, event: event.into(), attempt: 1 }
}

/// As a handler gets it when it has been under way for long.
pub(crate) fn late(event: Event) -> HandlerEvent {
    HandlerEvent { received_at: event.time + Duration::minutes(2), event: event.into(), attempt: 1 }
}

/// The entry of an order as the API would write it.
pub(crate) fn entry(order: &Order) -> CacheWrite {
    CacheWrite {
        order: order.key(),
        version: order.version,
        content: Some((order.customer_id, Bytes::from(order.to_json()))),
        may_create: true,
    }
}

/// Stores an order and logs its events, as the API does; a deletion among them leaves no order. Not the history.
pub(crate) async fn store(db: &PgPool, events: &[Event]) {
    for event in events {
        let order = &event.data.order;
        sqlx::query("DELETE FROM orders WHERE id = $1").bind(order.id.get()).execute(db).await.expect("SQL");
        if event.event_type != EventType::OrderDeleted {
            sqlx::query("INSERT INTO orders VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .bind(order.id.get())
                .bind(order.customer_id.get())
                .bind(order.order_date)
                .bind(order.status.as_str())
                .bind(order.total_amount.amount())
                .bind(order.version)
                .bind(order.created_at)
                .bind(order.updated_at)
                .bind(order.tenant_id.get())
                .execute(db)
                .await
                .expect("the order can be stored");
            for (position, line) in (0_i16..).zip(&order.lines) {
                sqlx::query("INSERT INTO order_lines VALUES ($1, $2, $3, $4, $5, $6, $7)")
                    .bind(line.id.get())
                    .bind(order.id.get())
                    .bind(position)
                    .bind(line.product_id.get())
                    .bind(line.quantity)
                    .bind(line.unit_price.amount())
                    .bind(order.tenant_id.get())
                    .execute(db)
                    .await
                    .expect("the line can be stored");
            }
        }
        log(db, event).await;
    }
}

/// Logs an event.
pub(crate) async fn log(db: &PgPool, event: &Event) {
    let envelope = event.to_envelope();
    sqlx::query(
        "INSERT INTO outbox (event_id, event_type, order_id, version, payload, tenant_id)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(envelope.id)
    .bind(envelope.event_type)
    .bind(envelope.key)
    .bind(envelope.sequence)
    .bind(envelope.body)
    .bind(event.tenant().get())
    .execute(db)
    .await
    .expect("the event can be logged");
}
