//! What waits, told cheaply; and that a long backlog costs no more per event than a short one.

use api::outbox::{RelaySettings, backlog};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::outbox_support::{Broker, Log, append, publish_all};

#[tokio::test]
async fn the_backlog_counts_events_that_are_committed_and_not_published() {
    let log = Log::new().await;
    let broker = Broker::new();
    let empty = backlog(&log.pool).await.expect("the backlog");
    assert_eq!((empty.unpublished, empty.oldest_seconds), (0, None));

    let mut connection = log.connection().await;
    let mut open = connection.begin().await.expect("a transaction");
    append(&mut open, 1, 1).await;
    log.append_many(2..=10).await;
    let some = backlog(&log.pool).await.expect("the backlog");
    assert_eq!(some.unpublished, 9);
    assert!(some.oldest_seconds.is_some_and(|age| (0.0..60.0).contains(&age)), "{some:?}");

    let relay = log.relay_with(&broker, RelaySettings { batch: 4, ..RelaySettings::default() });
    relay.relay_once().await.expect("a step");
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 5);
    log.append_many(11..=12).await;
    assert_eq!(
        backlog(&log.pool).await.expect("the backlog").unpublished,
        7,
        "within a window, and after it"
    );
    publish_all(&relay).await;
    open.commit().await.expect("the commit");
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 1, "the late one");
    publish_all(&relay).await;
    let done = backlog(&log.pool).await.expect("the backlog");
    assert_eq!((done.unpublished, done.oldest_seconds), (0, None));
}

#[tokio::test]
async fn a_long_backlog_is_estimated() {
    let log = Log::new().await;
    log.append_many(1..=5000).await;
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 5000);
    let relay = log.relay(&Broker::new());
    relay.relay_once().await.expect("a step");
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 4500);
}

/// How many pages of the database one page of the log touches, once the connection knows its plan.
async fn cost(connection: &mut PgConnection, after: i64) -> u64 {
    pages(connection, after).await;
    pages(connection, after).await
}

async fn pages(connection: &mut PgConnection, after: i64) -> u64 {
    let (since, upto, low, high, late): (String, String, i64, i64, Vec<String>) = sqlx::query_as(
        "SELECT r.published::text, s.upto::text, w.low, w.high, w.late::text[]
         FROM relay r, (SELECT pg_current_snapshot() AS upto) s, LATERAL outbox_window(r.published, s.upto) w",
    )
    .fetch_one(&mut *connection)
    .await
    .expect("a window");
    let plan: Value = sqlx::query_scalar(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
         SELECT id FROM outbox_page($1::text::pg_snapshot, $2::text::pg_snapshot, $6::text[]::xid8[], $3, $4, $5, 500)",
    )
    .bind(since)
    .bind(upto)
    .bind(after)
    .bind(low)
    .bind(high)
    .bind(late)
    .fetch_one(&mut *connection)
    .await
    .expect("a plan");
    let page = find(&plan, "outbox_page").expect("the page in the plan");
    page["Shared Hit Blocks"].as_u64().unwrap_or(0) + page["Shared Read Blocks"].as_u64().unwrap_or(0)
}

/// The plan's node that runs a function.
fn find<'a>(plan: &'a Value, function: &str) -> Option<&'a Value> {
    if plan["Function Name"] == function {
        return Some(plan);
    }
    match plan {
        Value::Array(items) => items.iter().find_map(|item| find(item, function)),
        Value::Object(members) => members.values().find_map(|member| find(member, function)),
        _ => None,
    }
}

#[tokio::test]
async fn a_page_costs_the_same_in_a_long_window_as_in_a_short_one_beside_an_old_open_transaction() {
    let log = Log::new().await;
    let mut connection = log.connection().await;
    let mut open = connection.begin().await.expect("a transaction");
    append(&mut open, 1, 1).await;
    log.append_many(2..=20_000).await;
    let relay = log.relay(&Broker::new());
    publish_all(&relay).await;
    open.commit().await.expect("the late commit, with the lowest id of all");

    log.append_many(20_001..=21_000).await;
    let short = cost(&mut connection, 0).await;
    log.append_many(21_001..=80_000).await;
    for statistics in [false, true] {
        if statistics {
            log.run("ANALYZE outbox").await;
        }
        for after in [0, 20_500, 50_000, 79_000] {
            let pages = cost(&mut connection, after).await;
            assert!(
                pages <= short + 100,
                "after {after}, statistics: {statistics}: {pages} pages of the database, {short} in a short window"
            );
        }
    }
}
