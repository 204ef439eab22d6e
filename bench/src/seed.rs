//! Orders and events that were there before, written by SQL in one go.

use sqlx::{AssertSqlSafe, Executor, PgPool};

/// Customers among whom seeded orders are dealt out evenly.
pub const CUSTOMERS: i64 = 10_000;

/// Writes this many two-line orders, as if they had been created one every second until now, and nothing else: seeded
/// orders have no events, so that nothing begins to publish them.
pub async fn orders(pool: &PgPool, count: i64) -> anyhow::Result<()> {
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

/// Stands in the payload for the order's id.
const ID: &str = "4242424242";

/// Appends this many creations to the log, in transactions of 500 events, beginning with this order id.
pub async fn outbox(pool: &PgPool, first: i64, count: i64) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    let payload = crate::events::template(ID.parse()?)?.to_envelope().body.replace('\'', "''");
    let last = first + count - 1;
    for sql in [
        "SET synchronous_commit = off".to_owned(),
        format!(
            "DO $do$ DECLARE at bigint := {first}; BEGIN
               WHILE at <= {last} LOOP
                 INSERT INTO outbox (event_id, event_type, order_id, version, payload)
                 SELECT event_id, 'OrderCreated', id, 1,
                        replace(replace('{payload}', '{ID}', id::text), '00000000-0000-0000-0000-000000000000',
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
pub async fn history_of_outbox(pool: &PgPool) -> anyhow::Result<()> {
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
