//! The check at the end of every end-to-end test: orders, log, history and cache agree.

use std::time::Duration;

use redis::AsyncCommands as _;
use sqlx::{PgPool, Row as _};

use crate::{RedisStore, System};

/// What is stored in the end.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Orders that exist.
    pub orders: i64,
    /// Events in the log.
    pub events: i64,
    /// Rows of the history.
    pub history: i64,
    /// Each difference, in a sentence.
    pub differences: Vec<String>,
}

/// Every query counts rows that should not be, under the sentence that it proves wrong. Tenant 2 is the decoy, which has no events.
const CHECKS: [(&str, &str); 9] = [
    (
        "an event is missing from the history",
        "SELECT count(*) FROM outbox LEFT JOIN order_history USING (order_id, version) WHERE order_history.order_id IS NULL",
    ),
    (
        "a version is in the history that no event announced",
        "SELECT count(*) FROM order_history h LEFT JOIN outbox USING (order_id, version)
         WHERE outbox.order_id IS NULL AND h.tenant_id <> 2",
    ),
    (
        "an event, its record and what it says itself are not of one tenant",
        "SELECT count(*) FROM outbox o JOIN order_history h USING (order_id, version)
         WHERE o.tenant_id <> h.tenant_id OR o.tenant_id <> coalesce((o.payload::json ->> 'tenantid')::integer, 1)",
    ),
    (
        "an order has versions without an event",
        "SELECT count(*) FROM orders WHERE tenant_id <> 2
         AND version <> (SELECT count(*) FROM outbox o WHERE o.order_id = orders.id AND o.tenant_id = orders.tenant_id)",
    ),
    (
        "an event names an order that neither exists nor was deleted",
        "SELECT count(*) FROM outbox WHERE NOT EXISTS (SELECT 1 FROM orders WHERE id = order_id)
         AND NOT EXISTS (SELECT 1 FROM outbox deleted WHERE deleted.order_id = outbox.order_id AND event_type = 'OrderDeleted')",
    ),
    (
        "the log has a version of an order twice",
        "SELECT count(*) FROM (SELECT 1 FROM outbox GROUP BY order_id, version HAVING count(*) > 1) twice",
    ),
    (
        "an event has no position",
        "SELECT count(*) FROM outbox o LEFT JOIN log_events(0, 10000000) e USING (id) WHERE e.id IS NULL",
    ),
    (
        "the positions are not dense, or a position belongs to two events",
        "SELECT count(*) FROM (SELECT position, row_number() OVER (ORDER BY position) AS expected
                               FROM log_events(0, 10000000)) p WHERE position <> expected",
    ),
    (
        "the positions of an order do not ascend with its versions",
        "SELECT count(*) FROM (SELECT position, lag(position) OVER (PARTITION BY order_id ORDER BY version) AS before
                               FROM log_events(0, 10000000)) p WHERE position <= before",
    ),
];

pub(crate) async fn wait_until_consistent(system: &System, patience: Duration) -> Verdict {
    let pool = system.database.connect().await;
    testbed::eventually_within(patience, "every event is in the history", async || {
        let missing = count(&pool, CHECKS[0].1).await;
        if missing == 0 { Ok(()) } else { Err(format!("{missing} events are missing from the history")) }
    })
    .await;
    let mut differences = Vec::new();
    for (sentence, query) in CHECKS {
        let rows = count(&pool, query).await;
        if rows > 0 {
            differences.push(format!("{sentence} ({rows})"));
        }
    }
    differences.extend(cache_differences(system, &pool).await);
    let verdict = Verdict {
        orders: count(&pool, "SELECT count(*) FROM orders WHERE tenant_id <> 2").await,
        events: count(&pool, "SELECT count(*) FROM outbox").await,
        history: count(&pool, "SELECT count(*) FROM order_history WHERE tenant_id <> 2").await,
        differences,
    };
    pool.close().await;
    verdict
}

async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query(query).fetch_one(pool).await.expect("the check runs").get(0)
}

/// Every cache entry equals the database or is absent; a deleted order has a tombstone at most.
pub(crate) async fn cache_differences(system: &System, pool: &PgPool) -> Vec<String> {
    // What servers that replaced each other hold of earlier times is never read; their test reads every order instead.
    if matches!(system.redis, RedisStore::Group(_)) {
        return Vec::new();
    }
    let mut redis = system.redis.connect().await;
    let keys: Vec<String> = redis.keys("cache:order:*").await.expect("the keys are listed");
    let mut differences = Vec::new();
    for key in keys {
        let Some(entry): Option<String> = redis.get(&key).await.expect("the entry is read") else { continue };
        let order = key.trim_start_matches("cache:order:");
        let (tenant, id) = order.split_once(':').unwrap_or(("1", order));
        let number = |text: &str| text.parse::<i64>().expect("the key ends with the tenant and the id");
        let held: i64 = entry[..20].parse().expect("the entry begins with the version");
        let body = &entry[40..];
        let stored: Option<i64> =
            sqlx::query_scalar("SELECT version FROM orders WHERE tenant_id = $1 AND id = $2")
                .bind(number(tenant))
                .bind(number(id))
                .fetch_optional(pool)
                .await
                .expect("the order is read");
        match stored {
            Some(version) if version == held && body.contains(&format!("\"version\":{version},")) => {}
            None if body.is_empty() => {}
            _ => differences.push(format!("{key} holds version {held} of {stored:?}: {body}")),
        }
    }
    differences
}
