//! Removing a tenant: everything of it goes, and nothing of others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use secrecy::SecretString;
use shared::{
    domain::tenant::TenantId,
    platform::{db::DbPool, redis::Redis, shutdown::Shutdown},
};
use sqlx::{AssertSqlSafe, PgPool};
use worker::tenant_removal::{self, RemovalProgress, TenantRemoval};

use crate::support::World;

/// The tenant that is removed, between two that stay; one of these has a number that begins like its own.
const GONE: i32 = 3;
const TENANTS: [i32; 3] = [1, GONE, 33];
/// The stream of the broker.
const STREAM: &str = "events:orders";
/// Orders of each tenant.
const ORDERS: i32 = 40;
/// The tables with rows of tenants, and how their rows name it.
const TABLES: [(&str, &str); 9] = [
    ("orders", "tenant_id"),
    ("order_lines", "tenant_id"),
    ("outbox", "tenant_id"),
    ("order_history", "tenant_id"),
    ("dead_letters", "tenant_id"),
    ("cache_debts", "tenant_id"),
    ("accounts", "tenant_id"),
    ("ended_sessions", "tenant_id"),
    ("idempotency_keys", "CASE WHEN key LIKE '% %' THEN split_part(key, ' ', 1)::int ELSE 1 END"),
];

/// Keys that have the number of the tenant that is removed, and are not its own: of the default tenant's order, session and customer
/// of that number, and of an IPv6 network.
const OF_OTHERS: [&str; 7] = [
    "cache:order:3",
    "cache:order:3:fill",
    "cache:ab12:{order:3}:fill",
    "limit:customer:3",
    "limit:login-network:2001:db8:3::/64",
    "limit:address:2001:db8:3:5::/64",
    "limit:login-account-network:ab:2001:db8:3::/64",
];

fn gone() -> TenantId {
    GONE.try_into().expect("a tenant")
}

/// Writes rows of three tenants into every table, in turn.
async fn fill(db: &PgPool) {
    let statements = format!(
        "INSERT INTO tenants (id, slug, name, removal_began_at) VALUES (33, 'stays', 'Stays', NULL), ({GONE}, 'gone', 'Gone', now());
         CREATE TEMP TABLE new AS
         SELECT n * 100 + t AS id, t AS tenant FROM generate_series(1, {ORDERS}) n, unnest(ARRAY[1, {GONE}, 33]) t ORDER BY 1;
         INSERT INTO orders (id, tenant_id, customer_id, order_date, status, total_amount, version, created_at, updated_at)
         SELECT id, tenant, 7, '2025-01-20', 'PENDING', 1, 2, now(), now() FROM new;
         INSERT INTO order_lines (id, tenant_id, order_id, position, product_id, quantity, unit_price)
         SELECT id, tenant, id, 0, 1, 1, 1 FROM new;
         INSERT INTO outbox (event_id, event_type, tenant_id, order_id, version, payload)
         SELECT gen_random_uuid(), 'OrderCreated', tenant, id, v, '{{}}' FROM new, generate_series(1, 2) v ORDER BY v, id;
         INSERT INTO order_history (order_id, tenant_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT id, tenant, v, 'UPDATED', '{{}}', 7, 7, gen_random_uuid(), now() FROM new, generate_series(1, 2) v;
         INSERT INTO dead_letters (tenant_id, order_id, body, source, reason, attempts, broker)
         SELECT tenant, id, id::text::bytea, 'history', 'a test', 1, 'local' FROM new;
         INSERT INTO cache_debts (order_id, tenant_id, version) SELECT id, tenant, 1 FROM new;
         INSERT INTO accounts (tenant_id, email, password_hash) SELECT DISTINCT tenant, 'ada@example.com', 'x' FROM new;
         INSERT INTO ended_sessions SELECT DISTINCT tenant, 7, 1, now() FROM new;
         INSERT INTO idempotency_keys (customer_id, key, request_hash, status, headers, body)
         SELECT 7, key, '', 201, '[]', '' FROM new, LATERAL (VALUES
             (CASE tenant WHEN 1 THEN 'k' || id ELSE tenant || ' k' || id END),
             -- Of an operator of another tenant.
             (concat_ws(' ', tenant, CASE tenant WHEN {GONE} THEN 1 ELSE {GONE} END, 'k' || id))) AS keys (key)"
    );
    // One connection, because of the temporary table.
    let mut connection = db.acquire().await.expect("a connection");
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *connection).await.expect("rows of three tenants");
    let publish = "WITH sequenced AS (SELECT * FROM log_append_all(7))
         UPDATE relay r SET head = r.head + s.appended, published_position = r.head + s.appended, sequenced = s.sequenced FROM sequenced s";
    sqlx::query(publish).execute(&mut *connection).await.expect("all events are published");
}

/// How many rows each table has of each tenant.
async fn count(db: &PgPool) -> BTreeMap<(&'static str, i32), i64> {
    let mut counts = BTreeMap::new();
    for (table, tenant) in TABLES {
        let sql = format!("SELECT {tenant} AS tenant, count(*) FROM {table} GROUP BY 1");
        let rows: Vec<(i32, i64)> = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_all(db)
            .await
            .unwrap_or_else(|error| panic!("{table}: {error}"));
        counts.extend(rows.into_iter().map(|(tenant, rows)| ((table, tenant), rows)));
    }
    counts
}

/// The positions of the log with the tenant of each; `None` if it was removed.
async fn log(db: &PgPool) -> Vec<(i64, Option<i32>)> {
    sqlx::query_as("SELECT position, tenant_id FROM log_feed(0, 1000000, NULL)")
        .fetch_all(db)
        .await
        .expect("the log")
}

/// Keys of all tenants, as the cache, sessions and limits have them.
fn keys(tenant: i32) -> Vec<String> {
    [
        "cache:order:T:5",
        "cache:order:T:5:fill",
        "cache:ab12:{order:T:5}",
        "cache:ab12:{order:T:5}:fill",
        "session:T:a0-1",
        "ticket:T:hash",
        "limit:customer:T:7",
        "limit:tenant:T",
    ]
    .map(|key| key.replace('T', &tenant.to_string()))
    .to_vec()
}

#[tokio::test]
async fn everything_of_a_removed_tenant_goes_and_nothing_of_others_whenever_the_worker_is_killed() {
    let world = World::new().await;
    fill(&world.db).await;
    let mut redis = world.redis.connect().await;
    for key in OF_OTHERS {
        let _: () = redis::AsyncCommands::set(&mut redis, key, "x").await.expect("SET");
    }
    for tenant in TENANTS {
        for key in keys(tenant) {
            let _: () = redis::AsyncCommands::set(&mut redis, key, "x").await.expect("SET");
        }
        let body = format!(r#"{{"specversion":"1.0","tenantid":"{tenant}"}}"#);
        let _: String =
            redis::AsyncCommands::xadd(&mut redis, STREAM, "*", &[("body", body)]).await.expect("XADD");
    }
    let (before, log_before) = (count(&world.db).await, log(&world.db).await);

    let removal = || async {
        let redis = Redis::new(&SecretString::from(world.redis.url().to_owned())).expect("a URL");
        // More than a step looks at is of other tenants.
        TenantRemoval::new(world.db.clone().into(), redis, world.source().await)
            .with_grace(Duration::ZERO)
            .with_rows(i64::from(ORDERS) / 4)
    };
    // Killed after ever longer, between any two statements.
    for micros in (0..60).map(|step| step * 150) {
        let killed = removal().await;
        let _ended = tokio::time::timeout(Duration::from_micros(micros), killed.remove_step(gone())).await;
    }
    let (one, other) = (removal().await, removal().await);
    testbed::eventually("the tenant is gone", async || {
        let (one, other) = tokio::join!(one.remove_step(gone()), other.remove_step(gone()));
        let (one, other) = (one.expect("a step"), other.expect("a step"));
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM tenants WHERE id = $1)")
            .bind(GONE)
            .fetch_one(&world.db)
            .await
            .expect("the tenants");
        (!exists).then_some(()).ok_or((one, other))
    })
    .await;
    assert_eq!(one.remove_step(gone()).await.expect("a step"), RemovalProgress::Nothing);

    let expected: BTreeMap<_, _> = before.into_iter().filter(|((_, tenant), _)| *tenant != GONE).collect();
    assert_eq!(count(&world.db).await, expected);
    let expected: Vec<_> = log_before
        .into_iter()
        .map(|(position, tenant)| (position, tenant.filter(|tenant| *tenant != GONE)))
        .collect();
    assert_eq!(log(&world.db).await, expected, "positions stay used");
    for key in OF_OTHERS {
        let exists: bool = redis::AsyncCommands::exists(&mut redis, key).await.expect("EXISTS");
        assert!(exists, "{key}");
    }
    for tenant in TENANTS {
        for key in keys(tenant) {
            let exists: bool = redis::AsyncCommands::exists(&mut redis, &key).await.expect("EXISTS");
            assert_eq!(exists, tenant != GONE, "{key}");
        }
    }
    let entries: redis::streams::StreamRangeReply =
        redis::AsyncCommands::xrange_all(&mut redis, STREAM).await.expect("XRANGE");
    assert_eq!(entries.ids.len(), TENANTS.len() - 1);
}

#[tokio::test]
async fn a_tenant_with_unpublished_events_stays_until_they_are_published() {
    let world = World::new().await;
    fill(&world.db).await;
    sqlx::query("UPDATE relay SET published_position = published_position - 1")
        .execute(&world.db)
        .await
        .expect("the relay");
    let redis = Redis::new(&SecretString::from(world.redis.url().to_owned())).expect("a URL");
    let removal =
        TenantRemoval::new(world.db.clone().into(), redis, world.source().await).with_grace(Duration::ZERO);
    testbed::eventually("it waits", async || {
        let step = removal.remove_step(gone()).await.expect("a step");
        (step == RemovalProgress::Nothing).then_some(()).ok_or(step)
    })
    .await;
    let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM orders WHERE tenant_id = $1")
        .bind(GONE)
        .fetch_one(&world.db)
        .await
        .expect("its orders");
    assert_eq!(orders, i64::from(ORDERS));
    sqlx::query("UPDATE relay SET published_position = head").execute(&world.db).await.expect("the relay");
    remove_all(&world).await;
}

/// Removes the tenant to its end.
async fn remove_all(world: &World) {
    let redis = Redis::new(&SecretString::from(world.redis.url().to_owned())).expect("a URL");
    let removal =
        TenantRemoval::new(world.db.clone().into(), redis, world.source().await).with_grace(Duration::ZERO);
    testbed::eventually("it is gone", async || {
        let step = removal.remove_step(gone()).await.expect("a step");
        (step == RemovalProgress::Finished).then_some(()).ok_or(step)
    })
    .await;
}

/// How many events of the tenant the log has, and how many of others.
async fn count_events(world: &World) -> (i64, i64) {
    let count =
        "SELECT count(*) FILTER (WHERE tenant_id = $1), count(*) FILTER (WHERE tenant_id <> $1) FROM outbox";
    sqlx::query_as(count).bind(GONE).fetch_one(&world.db).await.expect("the log")
}

#[tokio::test]
async fn unpublished_events_of_others_hold_up_no_removal() {
    let world = World::new().await;
    fill(&world.db).await;
    let (_, others) = count_events(&world).await;
    let unpublished = "WITH new AS (
             INSERT INTO outbox (event_id, event_type, tenant_id, order_id, version, payload)
             VALUES (gen_random_uuid(), 'OrderCreated', 1, 1, 1, '{}') RETURNING id, day
         ), page AS (
             INSERT INTO log_pages (first, events, ids, days)
             SELECT head + 1, 1, int8multirange(int8range(id, id, '[]')), daterange(day, day, '[]') FROM new, relay
         )
         UPDATE relay SET head = head + 1";
    sqlx::query(unpublished).execute(&world.db).await.expect("an event of another tenant");
    remove_all(&world).await;
    assert_eq!(count_events(&world).await, (0, others + 1));
}

#[tokio::test]
async fn events_whose_page_was_forgotten_with_an_older_day_go_too() {
    let world = World::new().await;
    fill(&world.db).await;
    let (_, others) = count_events(&world).await;
    let forget =
        "DELETE FROM log_pages WHERE first < (SELECT first FROM log_pages ORDER BY first OFFSET 2 LIMIT 1)";
    let forgotten = sqlx::query(forget).execute(&world.db).await.expect("pages are forgotten");
    assert_eq!(forgotten.rows_affected(), 2);
    remove_all(&world).await;
    assert_eq!(count_events(&world).await, (0, others));
}

#[tokio::test]
async fn a_removal_begins_after_its_grace() {
    let world = World::new().await;
    fill(&world.db).await;
    let redis = Redis::new(&SecretString::from(world.redis.url().to_owned())).expect("a URL");
    let removal = TenantRemoval::new(world.db.clone().into(), redis, world.source().await);
    assert_eq!(removal.remove_step(gone()).await.expect("a step"), RemovalProgress::Nothing);
    sqlx::query("UPDATE tenants SET removal_began_at = removal_began_at - interval '1 minute'")
        .execute(&world.db)
        .await
        .expect("a minute later");
    assert_eq!(removal.remove_step(gone()).await.expect("a step"), RemovalProgress::Removed);
}

#[tokio::test]
async fn a_removal_that_has_to_wait_holds_up_no_other() {
    let world = World::new().await;
    fill(&world.db).await;
    sqlx::query("UPDATE tenants SET removal_began_at = now() + interval '1 second' WHERE id = 33")
        .execute(&world.db)
        .await
        .expect("a second removal, ordered after the first");
    let mut client = world.db.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM orders WHERE tenant_id = $1 LIMIT 1 FOR UPDATE")
        .bind(GONE)
        .execute(&mut *client)
        .await
        .expect("a lock on an order of the first");
    let redis = Redis::new(&SecretString::from(world.redis.url().to_owned())).expect("a URL");
    let db = DbPool::from(world.db.clone()).sibling(tenant_removal::POOL);
    let removal = TenantRemoval::new(db, redis, world.source().await).with_grace(Duration::ZERO);
    let shutdown = Shutdown::new();
    let running = tokio::spawn(Arc::new(removal).run_until_shutdown(shutdown.clone()));
    let left = async || -> Vec<i32> {
        sqlx::query_scalar("SELECT id FROM tenants WHERE removal_began_at IS NOT NULL")
            .fetch_all(&world.db)
            .await
            .expect("the tenants")
    };
    testbed::eventually("the other one is gone", async || {
        let left = left().await;
        (left == [GONE]).then_some(()).ok_or(left)
    })
    .await;
    client.rollback().await.expect("the end of the lock");
    testbed::eventually("both are gone", async || {
        let left = left().await;
        left.is_empty().then_some(()).ok_or(left)
    })
    .await;
    shutdown.begin();
    running.await.expect("it ends");
}
