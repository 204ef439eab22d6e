//! What waits, told cheaply; and that a long backlog costs no more per event than a short one.

use std::{sync::Arc, time::Instant};

use api::outbox::{RelaySettings, backlog};
use serde_json::Value;
use sqlx::Connection as _;

use crate::outbox_support::{Broker, Log, append, publish_all};

#[tokio::test]
async fn the_backlog_counts_what_is_committed_and_not_published() {
    let log = Log::new().await;
    let broker = Broker::new();
    let empty = backlog(&log.db).await.expect("the backlog");
    assert_eq!((empty.unpublished, empty.oldest_seconds), (0, None));

    let mut connection = log.connection().await;
    let mut open = connection.begin().await.expect("a transaction");
    append(&mut open, 1, 1).await;
    log.append_many(2..=10).await;
    let some = backlog(&log.db).await.expect("the backlog");
    assert_eq!(some.unpublished, 9);
    assert!(some.oldest_seconds.is_some_and(|age| (0.0..60.0).contains(&age)), "{some:?}");

    let relay = log.relay_with(&broker, RelaySettings { batch: 4, ..RelaySettings::default() });
    relay.relay_once().await.expect("a step");
    assert_eq!(backlog(&log.db).await.expect("the backlog").unpublished, 5);
    log.append_many(11..=12).await;
    assert_eq!(backlog(&log.db).await.expect("the backlog").unpublished, 7, "within a window, and after it");
    publish_all(&relay).await;
    open.commit().await.expect("the commit");
    assert_eq!(backlog(&log.db).await.expect("the backlog").unpublished, 1, "the late one");
    publish_all(&relay).await;
    let done = backlog(&log.db).await.expect("the backlog");
    assert_eq!((done.unpublished, done.oldest_seconds), (0, None));
}

#[tokio::test]
async fn a_long_backlog_is_estimated() {
    let log = Log::new().await;
    log.append_many(1..=5000).await;
    assert_eq!(backlog(&log.db).await.expect("the backlog").unpublished, 5000);
    let relay = log.relay(&Broker::new());
    relay.relay_once().await.expect("a step");
    assert_eq!(backlog(&log.db).await.expect("the backlog").unpublished, 4500);
}

/// How many pages of the database one page of the log touches.
async fn cost(log: &Log, after: i64) -> u64 {
    let (since, upto, low, high): (String, String, i64, i64) = sqlx::query_as(
        "SELECT r.published::text, s.upto::text, w.low, w.high
         FROM relay r, (SELECT pg_current_snapshot() AS upto) s, LATERAL outbox_window(r.published, s.upto) w",
    )
    .fetch_one(&log.db)
    .await
    .expect("a window");
    let plan: Value = sqlx::query_scalar(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
         SELECT id FROM outbox_page($1::text::pg_snapshot, $2::text::pg_snapshot, $3, $4, $5, 500)",
    )
    .bind(since)
    .bind(upto)
    .bind(after)
    .bind(low)
    .bind(high)
    .fetch_one(&log.db)
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
    let short = cost(&log, 0).await;
    log.append_many(21_001..=80_000).await;
    for after in [0, 20_500, 50_000, 79_000] {
        let pages = cost(&log, after).await;
        assert!(
            pages <= short + 100,
            "after {after}: {pages} pages of the database, and {short} in a short window"
        );
    }
}

/// Not a test of right or wrong but a figure; run it in release mode with
/// `cargo xtask test --release -- --run-ignored all backlog_of_a_million --no-capture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and prints a figure"]
async fn a_backlog_of_a_million_costs_no_more_per_event_than_ten_thousand() {
    let log = Log::new().await;
    log.run(
        "CREATE PROCEDURE fill(events integer) LANGUAGE plpgsql AS $$ BEGIN
             FOR i IN 1 .. events / 20 LOOP
                 INSERT INTO outbox (event_id, event_type, order_id, version, payload)
                 SELECT gen_random_uuid(), 'OrderUpdated', o, i, json_build_object('pad', repeat('x', 700))
                 FROM generate_series(1, 20) o;
                 COMMIT;
             END LOOP;
         END $$",
    )
    .await;
    let mut rates = Vec::new();
    for events in [10_000_u32, 1_000_000, 10_000, 10_000] {
        let broker = Broker::new();
        let relay = Arc::new(log.relay(&broker));
        sqlx::query("CALL fill($1)")
            .bind(i32::try_from(events).expect("small"))
            .execute(&log.db)
            .await
            .expect("events");
        // Nothing is kept, so that the figure is the relay's and not that of a growing list.
        broker.forgets();
        let start = Instant::now();
        assert_eq!(publish_all(&relay).await, u64::from(events));
        let rate = f64::from(events) / start.elapsed().as_secs_f64();
        println!("{events:>9} waiting events: {rate:>9.0} a second, {:.1} µs each", 1e6 / rate);
        rates.push(rate);
        relay.release().await.expect("the lease is given back");
    }
    println!("a million against ten thousand: {:.2}", rates[1] / rates[0].max(rates[2]).max(rates[3]));
}
