//! How the log is read: the known wrong ways shown wrong, and ours right.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::outbox::{RelaySettings, RelayStep};
use sqlx::{Connection as _, PgConnection};

use crate::outbox_support::{Broker, Log, append, publish_all};

async fn count(connection: &mut PgConnection, sql: &'static str, bound: i64) -> i64 {
    sqlx::query_scalar(sql).bind(bound).fetch_one(connection).await.expect("a count")
}

#[tokio::test]
async fn reading_beyond_the_last_id_skips_a_transaction_that_commits_late_and_the_relay_does_not() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    let mut reader = log.connection().await;

    let mut writer = log.connection().await;
    let mut late = writer.begin().await.expect("a transaction");
    let low = append(&mut late, 1, 1).await;
    let high = log.append(2, 1).await;
    assert!(low < high);
    let last_seen: i64 =
        sqlx::query_scalar("SELECT max(id) FROM outbox").fetch_one(&mut reader).await.expect("an id");
    assert_eq!(publish_all(&relay).await, 1);
    late.commit().await.expect("the late commit");

    assert_eq!(
        count(&mut reader, "SELECT count(*) FROM outbox WHERE id > $1", last_seen).await,
        0,
        "skipped"
    );
    assert_eq!(publish_all(&relay).await, 1);
    assert_eq!(broker.take(), [(2, 1), (1, 1)]);
}

#[tokio::test]
async fn ordering_by_transaction_gives_version_2_before_1_and_the_relay_does_not() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    let mut writer = log.connection().await;

    // Its transaction is older than the one of version 1, whose commit it waits for.
    let mut older = writer.begin().await.expect("a transaction");
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *older).await.expect("a transaction id");
    log.append(1, 1).await;
    append(&mut older, 1, 2).await;
    older.commit().await.expect("the commit");

    let by_transaction: Vec<i64> = sqlx::query_scalar("SELECT version FROM outbox ORDER BY xid, id")
        .fetch_all(&log.db)
        .await
        .expect("the versions");
    assert_eq!(by_transaction, [2, 1]);
    assert_eq!(publish_all(&relay).await, 2);
    assert_eq!(broker.take(), [(1, 1), (1, 2)]);
}

#[tokio::test]
async fn late_and_new_events_of_one_window_are_merged_in_the_order_of_their_versions() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay_with(
        &broker,
        RelaySettings { batch: 2, lease: Duration::from_hours(1), ..RelaySettings::default() },
    );
    let mut writer = log.connection().await;

    let mut open = writer.begin().await.expect("a transaction");
    append(&mut open, 1, 1).await;
    log.append(9, 1).await;
    assert_eq!(publish_all(&relay).await, 1, "the window behind the cursor has the open transaction in it");
    broker.take();

    log.append(2, 1).await;
    append(&mut open, 2, 2).await;
    log.append(3, 1).await;
    append(&mut open, 3, 2).await;
    log.append(4, 1).await;
    open.commit().await.expect("the commit");

    assert_eq!(publish_all(&relay).await, 6);
    assert_eq!(broker.take(), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1)]);
}

#[tokio::test]
async fn waiting_for_the_oldest_transaction_stalls_behind_any_open_one_and_the_relay_does_not() {
    const GATED: &str =
        "SELECT count(*) FROM outbox WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) AND id > $1";

    for elsewhere in [false, true] {
        let log = Log::new().await;
        let other = testbed::empty_postgres().await;
        let broker = Broker::new();
        let relay = log.relay(&broker);
        let mut reader = log.connection().await;

        let url = if elsewhere { other.url() } else { log.database.url() };
        let mut writer = PgConnection::connect(url).await.expect("a connection");
        let mut open = writer.begin().await.expect("a transaction");
        sqlx::query("SELECT pg_current_xact_id()").execute(&mut *open).await.expect("a transaction id");

        log.append(1, 1).await;
        assert_eq!(count(&mut reader, GATED, 0).await, 0, "the gate is shut; elsewhere: {elsewhere}");
        assert_eq!(publish_all(&relay).await, 1, "elsewhere: {elsewhere}");
        open.rollback().await.expect("the end");
    }
}

#[tokio::test]
async fn a_rolled_back_transaction_publishes_no_event_and_blocks_none() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    let mut writer = log.connection().await;

    let mut undone = writer.begin().await.expect("a transaction");
    append(&mut undone, 1, 1).await;
    log.append(2, 1).await;
    assert_eq!(publish_all(&relay).await, 1);
    undone.rollback().await.expect("the end");
    log.append(3, 1).await;
    assert_eq!(publish_all(&relay).await, 1);
    assert_eq!(broker.take(), [(2, 1), (3, 1)]);
}

/// Twenty orders, for [`write_versions`].
pub(crate) async fn create_heads(log: &Log) {
    log.run("CREATE TABLE heads AS SELECT o AS order_id, 0::bigint AS version FROM generate_series(1::bigint, 20) o").await;
}

/// Bumps random orders under their row lock, some commits late, some rolled back, until told to stop.
pub(crate) async fn write_versions(mut connection: PgConnection, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let mut transaction = connection.begin().await.expect("a transaction");
        let order = rand::random_range(1..=20);
        let version: i64 = sqlx::query_scalar(
            "UPDATE heads SET version = version + 1 WHERE order_id = $1 RETURNING version",
        )
        .bind(order)
        .fetch_one(&mut *transaction)
        .await
        .expect("the row");
        append(&mut transaction, order, version).await;
        if rand::random_bool(0.05) {
            sqlx::query("SELECT pg_sleep(random() * 0.05)")
                .execute(&mut *transaction)
                .await
                .expect("a slow one");
        }
        if rand::random_bool(0.1) {
            transaction.rollback().await.expect("a rollback");
        } else {
            transaction.commit().await.expect("a commit");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twelve_racing_writers_every_event_is_published_once_and_in_the_order_of_versions() {
    let log = Log::new().await;
    create_heads(&log).await;
    let broker = Broker::new();
    let enough = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..12 {
        writers.spawn(write_versions(log.connection().await, Arc::clone(&enough)));
    }

    // Small pages, so that windows of several pages are common.
    let relay = log.relay_with(
        &broker,
        RelaySettings { batch: 7, lease: Duration::from_hours(1), ..RelaySettings::default() },
    );
    let writing = tokio::time::Instant::now();
    let mut full_pages = 0;
    // Three seconds, or on a busy machine until it was enough.
    let lasts = |seconds| writing.elapsed() < Duration::from_secs(seconds);
    while lasts(3) || lasts(60) && (full_pages == 0 || broker.len() <= 100) {
        let step = relay.relay_once().await.expect("a step");
        full_pages += u32::from(matches!(step, RelayStep::Published { more: true, .. }));
    }
    enough.store(true, Ordering::Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer.expect("the writer ends well");
    }
    publish_all(&relay).await;

    let published = broker.take_events();
    let committed: i64 =
        sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&log.db).await.expect("a count");
    assert!(committed > 100, "only {committed} events were written");
    assert!(full_pages > 0, "no window had more than a page");
    assert_eq!(published.len(), usize::try_from(committed).expect("a count"), "every event");
    let once: HashSet<_> = published.iter().map(|event| event.id).collect();
    assert_eq!(once.len(), published.len(), "none twice");
    let mut versions = BTreeMap::<i64, i64>::new();
    for event in &published {
        let last = versions.insert(event.key, event.sequence).unwrap_or(0);
        assert_eq!(event.sequence, last + 1, "order {}", event.key);
    }
}
