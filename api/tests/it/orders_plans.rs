//! The plans of the list at scale: every combination of filters is answered from an index.

use api::db::{self, ListPosition, OrderFilter, PageStart, count_query, page_query};
use serde_json::Value;
use shared::domain::{
    order::{Money, OrderStatus},
    tenant::TenantId,
};
use sqlx::{PgPool, Postgres, QueryBuilder};
use time::macros::{date, datetime};

/// A customer of many orders, many customers of some, and a product in a few of them.
async fn seed(db: &PgPool) {
    for sql in [
        "INSERT INTO orders
         SELECT g, CASE WHEN g % 2 = 0 THEN 1 ELSE 2 + g % 1000 END, date '2025-01-01' - (g % 700)::int,
                (ARRAY['PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED'])[1 + g % 5],
                g % 5000, 1, timestamptz '2025-01-01Z' - g * interval '1 minute', '2025-01-01Z'
         FROM generate_series(1, 60000) g",
        "INSERT INTO order_lines
         SELECT 2 * g + l, g, l, 1 + (g * 7 + l) % 3000, 1, 1 FROM generate_series(1, 60000) g, generate_series(0, 1) l",
        "UPDATE orders SET reference = 'R ' || id WHERE id % 3 > 0",
        "VACUUM ANALYZE orders",
        "VACUUM ANALYZE order_lines",
    ] {
        sqlx::query(sql).execute(db).await.unwrap();
    }
}

/// Every combination of filters, for one customer and for all.
pub(crate) fn filters() -> impl Iterator<Item = OrderFilter> {
    // With ids or a reference, some of them: those are few orders, whatever else is asked for.
    (0..128_u32).chain((128..512).step_by(5)).map(|bits| {
        let on = |bit: u32| bits & (1 << bit) != 0;
        OrderFilter {
            tenant: TenantId::DEFAULT,
            customer: on(0).then(|| 1.try_into().unwrap()),
            status: on(1).then_some(OrderStatus::Shipped),
            product: on(2).then(|| 77.try_into().unwrap()),
            date_from: on(3).then_some(date!(2024 - 01 - 01)),
            date_to: on(4).then_some(date!(2024 - 06 - 30)),
            min_total: on(5).then(|| "100".parse::<Money>().unwrap()),
            max_total: on(6).then(|| "4000".parse::<Money>().unwrap()),
            ids: on(7).then(|| vec![1.try_into().unwrap(), 50_000.try_into().unwrap()]),
            reference: on(8).then(|| "R 50000".to_owned()),
        }
    })
}

/// The nodes of a plan that read a table as a whole.
fn scans(plan: &Value, found: &mut Vec<String>) {
    if plan["Node Type"] == "Seq Scan" {
        found.push(plan["Relation Name"].to_string());
    }
    for part in plan["Plans"].as_array().into_iter().flatten() {
        scans(part, found);
    }
}

/// The plan of a query, after `EXPLAIN` with these options.
pub(crate) async fn explain(db: &PgPool, options: &str, query: QueryBuilder<Postgres>) -> Value {
    let mut explained = QueryBuilder::<Postgres>::new(format!("EXPLAIN ({options}, FORMAT JSON) "));
    // The same text with the same values; only the word in front is added.
    let arguments = explained_arguments(&mut explained, query);
    let plan: sqlx::types::Json<Value> =
        sqlx::query_scalar_with(sqlx::AssertSqlSafe(explained.sql().as_str().to_owned()), arguments)
            .persistent(false)
            .fetch_one(db)
            .await
            .unwrap();
    plan.0[0]["Plan"].clone()
}

fn explained_arguments(
    explained: &mut QueryBuilder<Postgres>,
    mut query: QueryBuilder<Postgres>,
) -> sqlx::postgres::PgArguments {
    use sqlx::Execute as _;

    let mut built = query.build();
    let arguments = built.take_arguments().unwrap().unwrap_or_default();
    explained.push(built.sql().as_str());
    arguments
}

/// No page and no total reads a whole table, whatever the filters.
pub(crate) async fn assert_every_filter_uses_an_index(db: &PgPool, middle: ListPosition) {
    for filter in filters() {
        for start in [PageStart::Offset(0), PageStart::After(middle)] {
            let plan = explain(db, "COSTS", page_query(&filter, start, 10)).await;
            let mut found = Vec::new();
            scans(&plan, &mut found);
            assert!(found.is_empty(), "{filter:?} {start:?} scans {found:?}: {plan:#}");
        }
        let plan = explain(db, "COSTS", count_query(&filter)).await;
        let mut found = Vec::new();
        scans(&plan, &mut found);
        assert!(found.is_empty(), "the count of {filter:?} scans {found:?}: {plan:#}");
    }
}

#[tokio::test]
async fn every_combination_of_filters_is_answered_from_an_index() {
    let database = testbed::postgres().await;
    let db = database.connect().await;
    seed(&db).await;
    let middle = ListPosition { created_at: datetime!(2024-12-10 00:00 UTC), id: 30_000.try_into().unwrap() };
    assert_every_filter_uses_an_index(&db, middle).await;
}

#[tokio::test]
async fn expired_keys_are_removed_in_small_batches_without_a_scan() {
    let database = testbed::postgres().await;
    let db = database.connect().await;
    for sql in [
        "INSERT INTO idempotency_keys
         SELECT g % 100, 'key-' || g, '\\x00', 201, '[]', '\\x00', now() - interval '30 hours' + g * interval '1 second'
         FROM generate_series(1, 50000) g",
        "VACUUM ANALYZE idempotency_keys",
    ] {
        sqlx::query(sql).execute(&db).await.unwrap();
    }
    let mut transaction = db.begin().await.unwrap();
    assert_eq!(db::delete_expired_responses(&mut transaction, 500).await.unwrap(), 500);
    let scans: i64 = sqlx::query_scalar(
        "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'idempotency_keys'",
    )
    .fetch_one(&mut *transaction)
    .await
    .unwrap();
    assert_eq!(scans, 0);
}
