//! Entries that are read ahead are not lost.

use std::time::Duration;

use testbed::eventually;

use super::{RedisBench, take};
use crate::broker::{
    Delivery, EventSource as _,
    contract::{Bench as _, HANDED_OUT_AGAIN},
    redis_streams::RedisStreamsSource,
};

/// Takes a full batch, and waits until others are read ahead of the next.
async fn with_some_read_ahead(bench: &RedisBench) -> (RedisStreamsSource, Vec<Delivery>) {
    let source = bench.redis_source("one").await;
    bench.publish(300).await;
    let first = source.receive(50, Duration::from_secs(5)).await.expect("received");
    assert_eq!(first.len(), 50);
    eventually("two batches are read ahead", async || source.state.in_flight().all().len() == 150).await;
    (source, first)
}

fn keys(deliveries: &[Delivery]) -> Vec<i64> {
    let key = |delivery: &Delivery| {
        serde_json::from_slice::<serde_json::Value>(&delivery.body).unwrap()["key"].as_i64()
    };
    deliveries.iter().map(|delivery| key(delivery).unwrap()).collect()
}

#[tokio::test]
async fn entries_read_ahead_are_kept_from_other_consumers_and_delivered_in_order() {
    let bench = RedisBench::start().await;
    let (source, mut taken) = with_some_read_ahead(&bench).await;
    let other = bench.redis_source("two").await;
    let theirs = take(&other, 150).await;
    assert_eq!(keys(&theirs), (151..=300).collect::<Vec<_>>());
    // Long enough for what has no heartbeat to be taken over.
    assert!(other.receive(10, HANDED_OUT_AGAIN).await.expect("received").is_empty());
    while taken.len() < 150 {
        taken.extend(source.receive(7, Duration::from_secs(5)).await.expect("received"));
    }
    assert_eq!(keys(&taken), (1..=150).collect::<Vec<_>>());
    assert!(taken.iter().all(|delivery| delivery.attempt == 1));
    assert!(source.receive(10, Duration::from_millis(10)).await.expect("received").is_empty());
}

#[tokio::test]
async fn entries_read_ahead_go_to_other_consumers_when_theirs_closes_or_dies() {
    for closes in [true, false] {
        let bench = RedisBench::start().await;
        let (source, taken) = with_some_read_ahead(&bench).await;
        if closes {
            source.close().await;
        }
        drop((source, taken));
        let mut left = keys(&take(&bench.redis_source("two").await, 300).await);
        left.sort_unstable();
        assert_eq!(left, (1..=300).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_interrupted_receive_ends_the_reading_ahead_and_loses_nothing() {
    let bench = RedisBench::start().await;
    let (source, taken) = with_some_read_ahead(&bench).await;
    source.receiving.lock().await.interrupted = true;
    let next = source.receive(50, Duration::from_secs(5)).await.expect("received");
    assert_eq!(source.state.in_flight().all().len(), 150, "no more is read for it");
    let mut seen = [keys(&taken), keys(&next), keys(&take(&source, 200).await)].concat();
    seen.sort_unstable();
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lost_connection_loses_no_entry_that_was_read_ahead() {
    let bench = RedisBench::start().await;
    let (source, taken) = with_some_read_ahead(&bench).await;
    bench.proxy().cut();
    let mut seen = keys(&taken);
    while seen.len() < 300 {
        // Calls fail until there is a new connection.
        if let Ok(batch) = source.receive(50, Duration::from_secs(1)).await {
            seen.extend(keys(&batch));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
}
