//! The list of a customer with a million orders: what a page and its total read does not grow with the depth or the
//! number of orders. Counted in blocks, so that it is the same on every machine.

use api::db::{ListPosition, OrderFilter, PageStart, count_query, page_query};
use serde_json::Value;
use shared::domain::{order::OrderStatus, tenant::TenantId};
use sqlx::{AssertSqlSafe, PgPool, Postgres, QueryBuilder};
use time::{Duration, macros::datetime};

use crate::orders_plans::{assert_every_filter_uses_an_index, explain};

/// Orders of customer 1, the oldest first; and one of each of ten thousand others.
const ORDERS: i64 = 1_000_000;

/// Marks all pages as visible to everybody, so that counts need not read them. A snapshot that something holds, such
/// as autovacuum, puts that off: then again.
async fn vacuum(db: &PgPool) {
    let visible =
        "SELECT bool_and(relallvisible = relpages) FROM pg_class WHERE relname IN ('orders', 'order_lines')";
    for _ in 0..20 {
        sqlx::query("VACUUM ANALYZE orders, order_lines").execute(db).await.unwrap();
        if sqlx::query_scalar(visible).fetch_one(db).await.unwrap() {
            return;
        }
    }
    panic!("pages stay invisible");
}

async fn seed(db: &PgPool) {
    for sql in [
        "INSERT INTO orders
         SELECT g, 1, '2025-01-01', (ARRAY['PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED'])[1 + g % 4],
                g % 5000, 1, timestamptz '2025-01-01Z' + g * interval '1 second', '2025-01-01Z'
         FROM generate_series(1, 1000000) g",
        "INSERT INTO orders
         SELECT 1000000 + g, 1 + g, '2025-01-01', 'PENDING', 1, 1, timestamptz '2024-01-01Z' + g * interval '1 second',
                '2025-01-01Z'
         FROM generate_series(1, 10000) g",
        // Where pages are read below.
        "INSERT INTO order_lines
         SELECT id, id, 0, 1, 1, 1 FROM orders WHERE tenant_id = 1 AND customer_id = 1 AND (id < 200 OR id > 999800)",
    ] {
        sqlx::query(sql).execute(db).await.unwrap();
    }
    vacuum(db).await;
}

/// A million orders of one line each, by the expression that gives their customer.
async fn seed_with_lines(db: &PgPool, customer: &str) {
    let mut connection = db.acquire().await.unwrap();
    for sql in [
        // A million checks of a key that holds by construction.
        "SET session_replication_role = replica".to_owned(),
        format!(
            "INSERT INTO orders
             SELECT g, {customer}, date '2025-01-01' - (g % 700)::int,
                    (ARRAY['PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED'])[1 + g % 5],
                    g % 5000, 1, timestamptz '2025-01-01Z' + g * interval '1 second', '2025-01-01Z'
             FROM generate_series(1, {ORDERS}) g"
        ),
        format!(
            "INSERT INTO order_lines SELECT g, g, 0, 1 + g % 3000, 1, 1 FROM generate_series(1, {ORDERS}) g"
        ),
        "RESET session_replication_role".to_owned(),
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await.unwrap();
    }
    vacuum(db).await;
}

/// In the middle of the million.
fn middle() -> ListPosition {
    let id = ORDERS / 2;
    ListPosition {
        created_at: datetime!(2025-01-01 00:00 UTC) + Duration::seconds(id),
        id: id.try_into().unwrap(),
    }
}

#[tokio::test]
async fn every_filter_uses_an_index_on_a_million_orders_of_one_customer() {
    let database = testbed::postgres().await;
    let db = database.connect().await;
    seed_with_lines(&db, "1").await;
    assert_every_filter_uses_an_index(&db, middle()).await;
}

#[tokio::test]
async fn every_filter_uses_an_index_on_a_million_orders_of_ten_thousand_customers() {
    let database = testbed::postgres().await;
    let db = database.connect().await;
    seed_with_lines(&db, "1 + g % 10000").await;
    assert_every_filter_uses_an_index(&db, middle()).await;
}

/// The blocks that a query reads, from memory or from disk.
async fn blocks(db: &PgPool, query: QueryBuilder<Postgres>) -> i64 {
    let plan: Value = explain(db, "ANALYZE, BUFFERS", query).await;
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().filter_map(|name| plan[*name].as_i64()).sum()
}

#[tokio::test]
async fn a_page_a_million_orders_deep_reads_at_most_twice_the_first_and_total_never_scans() {
    let database = testbed::postgres().await;
    let db = database.connect().await;
    seed(&db).await;
    let own = OrderFilter { customer: Some(1.try_into().unwrap()), ..OrderFilter::all_of(TenantId::DEFAULT) };
    let shipped = OrderFilter { status: Some(OrderStatus::Shipped), ..own.clone() };
    // The hundred oldest are left.
    let id = 100;
    let deep = ListPosition {
        created_at: datetime!(2025-01-01 00:00 UTC) + Duration::seconds(id),
        id: id.try_into().unwrap(),
    };
    for filter in [&own, &shipped, &OrderFilter::all_of(TenantId::DEFAULT)] {
        let first = blocks(&db, page_query(filter, PageStart::Offset(0), 10)).await;
        let at_depth = blocks(&db, page_query(filter, PageStart::After(deep), 10)).await;
        assert!(
            at_depth <= 2 * first,
            "{filter:?}: {first} blocks at first, {at_depth} at a depth of {ORDERS}"
        );
    }

    let table: i64 = sqlx::query_scalar("SELECT relpages::bigint FROM pg_class WHERE relname = 'orders'")
        .fetch_one(&db)
        .await
        .unwrap();
    let cancelled = OrderFilter { status: Some(OrderStatus::Cancelled), ..own.clone() };
    for filter in [&own, &shipped, &cancelled, &OrderFilter::all_of(TenantId::DEFAULT)] {
        let counting = blocks(&db, count_query(filter)).await;
        assert!(
            counting * 10 < table,
            "{filter:?}: its total reads {counting} blocks, the table has {table}"
        );
    }
}
