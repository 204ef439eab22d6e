//! The whole way over a real Redis that loses everything in the middle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::outbox::{Reconciler, ReconcilerSettings, Relay, RelaySettings, RelayStep};
use secrecy::SecretString;
use shared::broker::{BrokerConfig, EventSink, EventSource, connect_sink, connect_source};
use sqlx::PgPool;
use testbed::eventually_within;

use crate::outbox_support::Log;

/// A consumer as the worker is one: history first, then the acknowledgement. Not on every event at once, so that some
/// wait in the broker at any time.
async fn consume(source: Arc<dyn EventSource>, db: PgPool, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(batch) = source.receive(20, Duration::from_millis(200)).await else { continue };
        let bodies: Vec<String> =
            batch.iter().map(|delivery| String::from_utf8_lossy(&delivery.body).into_owned()).collect();
        sqlx::query(
            "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
             SELECT (b::json ->> 'order')::bigint, 1, 'CREATED', '{}', 1, 1, gen_random_uuid(), now()
             FROM unnest($1::text[]) b ON CONFLICT DO NOTHING",
        )
        .bind(bodies)
        .execute(&db)
        .await
        .expect("the history is written");
        let settlements = batch.into_iter().map(shared::broker::Delivery::ack).collect();
        // What the broker lost cannot be acknowledged.
        drop(source.settle(settlements).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_flushed_under_load_ends_with_a_complete_history() {
    let log = Log::new().await;
    let redis = testbed::private_redis().await;
    let config = BrokerConfig::RedisStreams { url: SecretString::from(redis.url().to_owned()) };
    let sink: Arc<dyn EventSink> = Arc::from(connect_sink(&config).await.expect("a sink"));
    let source: Arc<dyn EventSource> = Arc::from(connect_source(&config, "test").await.expect("a source"));
    let lease = Duration::from_hours(1);
    let relay = Relay::new(log.db.clone(), sink, RelaySettings { lease, ..RelaySettings::default() });
    // In place of a minute, so that the test takes seconds.
    let second = Duration::from_secs(1);
    let settings = ReconcilerSettings { after: second, pause: second, ..ReconcilerSettings::default() };
    let reconciler = Reconciler::new(&relay, settings);
    let stop = Arc::new(AtomicBool::new(false));
    let consumer = tokio::spawn(consume(Arc::clone(&source), log.db.clone(), Arc::clone(&stop)));

    // The consumer is overtaxed for a moment: some hundred events are in Redis when it loses them.
    let mut flushed = 0;
    let mut admin = testbed::connect_redis(redis.url()).await.expect("a connection");
    for burst in 0..30 {
        log.append_many(burst * 100 + 1..=burst * 100 + 100).await;
        while matches!(relay.relay_once().await.expect("a step"), RelayStep::Published { .. }) {}
        if burst == 10 || burst == 20 {
            let keys: u64 = redis::cmd("DBSIZE").query_async(&mut admin).await.expect("a count");
            redis::cmd("FLUSHALL").exec_async(&mut admin).await.expect("flushed");
            flushed += keys;
        }
    }
    assert!(flushed > 0, "there was something to lose");

    let mut repaired = 0;
    eventually_within(Duration::from_secs(90), "the history is complete", async || {
        while matches!(relay.relay_once().await, Ok(RelayStep::Published { .. })) {}
        repaired += reconciler.reconcile_once().await.map_or(0, |round| round.repaired);
        let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM order_history WHERE tenant_id = 1")
            .fetch_one(&log.db)
            .await
            .expect("a count");
        if recorded == 3000 { Ok(()) } else { Err(format!("{recorded} recorded, {repaired} repaired")) }
    })
    .await;
    println!("{repaired} events were repaired");
    stop.store(true, Ordering::Relaxed);
    source.close().await;
    consumer.await.expect("the consumer ends well");
}
