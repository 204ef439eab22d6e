//! What a broker loses under load, the reconciler sends again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{Api, Broker, Client, System};
use futures_util::future::try_join_all;

/// From the loss to the complete history. The reconciler looks every ten seconds at what is older than a minute.
const HEALED_WITHIN: Duration = Duration::from_mins(2);
const CLIENTS: i64 = 2;
/// So much of what is lost must have been in no worker's hands.
const LOST: u64 = 200;
/// The load continues for this many orders after the loss.
const AFTER: i64 = 200;

async fn what_is_lost_under_load_is_repaired(broker: Broker) {
    let system = System::new(broker).await;
    let api = system.api().await;
    let worker = system.worker().await;
    let (lived, until) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(i64::MAX)));
    let clients = (0..CLIENTS).map(|client| {
        let (url, lived, until) = (api.url.clone(), Arc::clone(&lived), Arc::clone(&until));
        tokio::spawn(async move {
            let shop = Client::login(&url, client + 1).await?;
            let mut seed = client;
            while lived.load(Ordering::SeqCst) < until.load(Ordering::SeqCst) {
                shop.complete_order(seed).await?;
                lived.fetch_add(1, Ordering::SeqCst);
                seed += CLIENTS;
            }
            anyhow::Ok(())
        })
    });
    let load = tokio::spawn(try_join_all(clients));
    testbed::eventually("orders live, and so does the worker", async || {
        lived.load(Ordering::SeqCst) >= 50 && system.broker.waiting(&system.redis).await < LOST
    })
    .await;

    // The worker falls behind, so that there is something to lose.
    worker.pause();
    let lost = testbed::eventually("events wait in the broker", async || {
        Some(system.broker.waiting(&system.redis).await).filter(|waiting| *waiting >= LOST)
    })
    .await;
    system.broker.lose_everything().await;
    let since = Instant::now();
    worker.resume();
    until.store(lived.load(Ordering::SeqCst) + AFTER, Ordering::SeqCst);
    for outcome in load.await.expect("the load ran").expect("every client ran") {
        outcome.expect("every request was answered");
    }

    let verdict = system.wait_until_consistent(HEALED_WITHIN.saturating_sub(since.elapsed())).await;
    let took = since.elapsed();
    assert_eq!(verdict.differences, Vec::<String>::new());
    assert_eq!(verdict.history, 3 * lived.load(Ordering::SeqCst));
    let repaired = counted_as_repaired(&api, lost).await;
    println!("lost {lost} or more of {} events, repaired {repaired}, healed after {took:?}", verdict.events);
    worker.terminate().await;
    api.program.terminate().await;
}

/// Waits until at least so many events are counted as repaired, which they are after the broker has confirmed them, and returns
/// how many it are.
async fn counted_as_repaired(api: &Api, least: u64) -> u64 {
    testbed::eventually("the repaired events are counted", async || {
        let repaired = api.counted("events_repaired_total").await;
        if repaired >= least { Ok(repaired) } else { Err(repaired) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_under_load_is_made_good_within_two_minutes() {
    what_is_lost_under_load_is_repaired(Broker::own_redis().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_rabbitmq_queue_under_load_is_made_good_within_two_minutes() {
    what_is_lost_under_load_is_repaired(Broker::rabbitmq().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_and_recreated_sqs_queue_under_load_is_made_good_within_two_minutes() {
    what_is_lost_under_load_is_repaired(Broker::sqs().await).await;
}

/// The cache and the sessions are gone with the stream, and no worker has come past the loss.
#[tokio::test(flavor = "multi_thread")]
async fn events_lost_with_the_whole_redis_are_repaired() {
    let system = System::new(Broker::RedisStreams).await;
    let api = system.api().await;
    let shop = Client::login(&api.url, 1).await.expect("logs in");
    for seed in 0..20 {
        shop.complete_order(seed).await.expect("the order lives");
    }
    testbed::eventually("the relay has published everything", async || {
        let mut redis = system.redis.connect().await;
        let length: u64 = redis::cmd("XLEN").arg("events:orders").query_async(&mut redis).await.unwrap_or(0);
        length >= 60
    })
    .await;
    let mut redis = system.redis.connect().await;
    redis::cmd("FLUSHDB").exec_async(&mut redis).await.expect("the stream is gone");
    let _worker = system.worker().await;
    let verdict = system.wait_until_consistent(HEALED_WITHIN).await;
    assert_eq!(verdict.differences, Vec::<String>::new());
    assert_eq!(verdict.history, 60);
    counted_as_repaired(&api, 60).await;
}
