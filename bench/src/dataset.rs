//! The orders and events of the bench: as values for its clients, and as SQL that writes many of them at once.

use shared::domain::clock::Clock;
use shared::domain::event::{Event, Happened};
use shared::domain::order::{
    CustomerId, CustomerKey, LineId, Metadata, Money, Order, OrderId, OrderLine, OrderStatus, ProductId,
};
use shared::domain::tenant::TenantId;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

/// Seeded orders belong to this many customers in turn.
pub const CUSTOMERS: i64 = 10_000;
/// The order id in the template of an event, which SQL replaces.
const TEMPLATE_ID: i64 = 4_242_424_242;
/// Any trace: events carry one.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The creation of a two-line order, now.
pub fn created_event(id: i64) -> anyhow::Result<Event> {
    let now = Clock::System.now();
    let line = |number, product, quantity, price: &str| {
        anyhow::Ok(OrderLine {
            id: LineId::try_from(number)?,
            product_id: ProductId::try_from(product)?,
            quantity,
            unit_price: price.parse::<Money>()?,
        })
    };
    let order = Order {
        id: OrderId::try_from(id)?,
        tenant_id: TenantId::DEFAULT,
        customer_id: CustomerId::try_from(1 + id % CUSTOMERS)?,
        order_date: now.date(),
        status: OrderStatus::Pending,
        total_amount: "66.00".parse()?,
        version: 1,
        created_at: now,
        updated_at: now,
        lines: vec![line(2 * id - 1, 1001, 2, "25.50")?, line(2 * id, 1002, 1, "15.00")?],
        reference: None,
        metadata: Metadata::default(),
    };
    let happened = happened_at(now, order.owner());
    Ok(Event::created(order, happened))
}

/// The same with a nil event id, for SQL to fill in.
fn created_template(id: i64) -> anyhow::Result<Event> {
    let mut event = created_event(id)?;
    event.id = Uuid::nil();
    Ok(event)
}

/// The confirmation of the same order.
pub fn updated_event(id: i64) -> anyhow::Result<Event> {
    let before = created_event(id)?.data.order.into_value();
    let after = Order { status: OrderStatus::Confirmed, version: 2, ..before.clone() };
    let happened = happened_at(after.updated_at, after.owner());
    Ok(Event::updated(&before, after, happened))
}

fn happened_at(time: OffsetDateTime, performed_by: CustomerKey) -> Happened {
    Happened { time, performed_by, traceparent: Some(TRACE.to_owned()) }
}

/// Writes this many two-line orders, as if they had been created one every second until now, and nothing else: seeded
/// orders have no events, so that nothing begins to publish them.
pub async fn insert_orders(pool: &PgPool, count: i64) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    let lines = 2 * count;
    for sql in [
        // Seeding may be lost in a crash, and its foreign keys hold by construction.
        "SET synchronous_commit = off".to_owned(),
        "SET session_replication_role = replica".to_owned(),
        format!(
            "INSERT INTO orders (id, customer_id, order_date, status, total_amount, version, created_at, updated_at)
             SELECT id, 1 + id % {CUSTOMERS}, '2025-01-20', 'PENDING', 66.00, 1, at, at
             FROM generate_series(1, {count}) id, LATERAL (SELECT now() - ({count} - id) * interval '1 second' AS at) t"
        ),
        format!(
            "INSERT INTO order_lines (id, order_id, position, product_id, quantity, unit_price)
             SELECT 2 * order_id + position - 1, order_id, position, 1001 + position, 2 - position,
                    CASE position WHEN 0 THEN 25.50 ELSE 15.00 END
             FROM generate_series(1, {count}) order_id, generate_series(0, 1) position"
        ),
        format!("SELECT setval('orders_id_seq', {count})"),
        format!("SELECT setval('order_lines_id_seq', {lines})"),
        "RESET session_replication_role".to_owned(),
        "RESET synchronous_commit".to_owned(),
        "VACUUM (ANALYZE) orders".to_owned(),
        "VACUUM (ANALYZE) order_lines".to_owned(),
        "CHECKPOINT".to_owned(),
    ] {
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    }
    Ok(())
}

/// Appends this many creations to the log, in transactions of 500 events, beginning with this order id.
pub async fn append_created_events(pool: &PgPool, first: i64, count: i64) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    let payload = created_template(TEMPLATE_ID)?.to_envelope().body.replace('\'', "''");
    let last = first + count - 1;
    for sql in [
        "SET synchronous_commit = off".to_owned(),
        format!(
            "DO $do$ DECLARE at bigint := {first}; BEGIN
               WHILE at <= {last} LOOP
                 INSERT INTO outbox (event_id, event_type, order_id, version, payload)
                 SELECT event_id, 'OrderCreated', id, 1,
                        replace(replace('{payload}', '{TEMPLATE_ID}', id::text), '00000000-0000-0000-0000-000000000000',
                                event_id::text)
                 FROM (SELECT id, gen_random_uuid() AS event_id FROM generate_series(at, least(at + 499, {last})) id) t;
                 COMMIT;
                 at := at + 500;
               END LOOP;
             END $do$"
        ),
        "RESET synchronous_commit".to_owned(),
        "VACUUM (ANALYZE) outbox".to_owned(),
        "CHECKPOINT".to_owned(),
    ] {
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    }
    Ok(())
}

/// A history row for each event of the log.
pub async fn record_outbox_history(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "INSERT INTO order_history
             (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT order_id, version, 'CREATED', '{}', 1, 1, event_id, recorded_at FROM outbox",
    )
    .execute(pool)
    .await?;
    sqlx::raw_sql("VACUUM (ANALYZE) order_history").execute(pool).await?;
    Ok(())
}
