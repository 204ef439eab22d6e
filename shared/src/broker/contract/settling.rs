//! What happens to a delivered event.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use testbed::eventually;

use super::{Bench, HANDED_OUT_AGAIN, SOON, ack, assert_quiet, body, events, publish, take};
use crate::broker::Delivery;

pub(super) async fn an_acknowledged_event_does_not_come_again<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    publish(&*sink, &events(30)).await;
    let taken = take(&*source, 30).await;
    ack(&*source, taken).await;
    source.close().await;
    let other = bench.source("two").await;
    assert_quiet(&*other, HANDED_OUT_AGAIN).await;
}

pub(super) async fn events_of_a_dead_consumer_come_again_as_the_next_attempt<B: Bench>(bench: &B) {
    let (sink, first) = (bench.sink().await, bench.source("one").await);
    let published = events(12);
    publish(&*sink, &published).await;
    let mut taken = take(&*first, 12).await;
    let acknowledged = taken.split_off(10);
    ack(&*first, acknowledged).await;
    drop(first);
    let second = bench.source("two").await;
    let again = take(&*second, 10).await;
    assert_eq!(again.iter().map(body).collect::<HashSet<_>>(), taken.iter().map(body).collect());
    assert!(again.iter().all(|delivery| delivery.attempt == 2), "{again:?}");
}

pub(super) async fn attempts_grow_with_each_delivery<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    publish(&*sink, &events(1)).await;
    for attempt in 1..=4 {
        let taken = take(&*source, 1).await;
        assert_eq!(taken[0].attempt, attempt);
        let again = taken.into_iter().map(|delivery| delivery.retry(Duration::ZERO)).collect();
        source.settle(again).await.expect("settled");
    }
}

pub(super) async fn a_retried_event_comes_again_after_about_the_delay<B: Bench>(bench: &B) {
    const DELAY: Duration = Duration::from_secs(2);
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published = events(3);
    publish(&*sink, &published).await;
    let mut taken = take(&*source, 3).await;
    let retried = taken.pop().expect("three came");
    let (text, published_at) = (body(&retried), retried.published_at);
    let mut settlements: Vec<_> = taken.into_iter().map(Delivery::ack).collect();
    settlements.push(retried.retry(DELAY));
    let start = Instant::now();
    source.settle(settlements).await.expect("settled");
    let again = take(&*source, 1).await;
    let waited = start.elapsed();
    // A broker that counts whole seconds can be up to one second early.
    assert!(waited + Duration::from_secs(1) >= DELAY, "came after {waited:?}");
    assert!(waited <= DELAY + SOON, "came after {waited:?}");
    assert_eq!(again[0].attempt, 2);
    assert_eq!(body(&again[0]), text);
    assert_eq!(again[0].published_at, published_at);
    ack(&*source, again).await;
    assert_quiet(&*source, HANDED_OUT_AGAIN).await;
}

pub(super) async fn a_slow_handler_keeps_its_events<B: Bench>(bench: &B) {
    let (sink, slow) = (bench.sink().await, bench.source("slow").await);
    publish(&*sink, &events(5)).await;
    let taken = take(&*slow, 5).await;
    let other = bench.source("other").await;
    assert_quiet(&*other, HANDED_OUT_AGAIN).await;
    ack(&*slow, taken).await;
    drop(slow);
    assert_quiet(&*other, HANDED_OUT_AGAIN).await;
}

pub(super) async fn the_backlog_counts_unsettled_events<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    assert_eq!(source.backlog().await.expect("a backlog").messages, 0);
    publish(&*sink, &events(7)).await;
    eventually("seven wait", async || source.backlog().await.is_ok_and(|backlog| backlog.messages == 7))
        .await;
    let taken = take(&*source, 7).await;
    eventually("seven are not settled", async || {
        source.backlog().await.is_ok_and(|backlog| backlog.messages == 7)
    })
    .await;
    ack(&*source, taken).await;
    eventually("none waits", async || source.backlog().await.is_ok_and(|backlog| backlog.messages == 0))
        .await;
}
