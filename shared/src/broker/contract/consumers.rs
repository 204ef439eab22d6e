//! Consumers start, share events, are interrupted and end.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{Bench, LIMIT, SOON, ack, assert_quiet, bodies, body, events, publish, take};

pub(super) async fn an_empty_queue_returns_an_empty_batch_in_time<B: Bench>(bench: &B) {
    let source = bench.source("one").await;
    for wait in [Duration::ZERO, Duration::from_millis(300)] {
        let start = Instant::now();
        let batch = source.receive(10, wait).await.expect("the broker is well");
        assert!(batch.is_empty());
        assert!(start.elapsed() < wait + SOON, "{:?}", start.elapsed());
    }
}

pub(super) async fn closing_wakes_a_blocked_receive_at_once<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    // One event first, so that the next receive surely reaches the broker.
    publish(&*sink, &events(1)).await;
    let taken = take(&*source, 1).await;
    ack(&*source, taken).await;
    let start = Instant::now();
    let (batch, ()) = tokio::join!(source.receive(10, LIMIT), async {
        let _blocked = tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
        source.close().await;
    });
    assert!(batch.expect("closing is no error").is_empty());
    assert!(start.elapsed() < SOON, "closing took {:?}", start.elapsed());
    assert!(source.receive(10, LIMIT).await.expect("closed is no error").is_empty());
    source.close().await;
}

pub(super) async fn closing_releases_unsettled_events<B: Bench>(bench: &B) {
    let (sink, first) = (bench.sink().await, bench.source("one").await);
    publish(&*sink, &events(5)).await;
    let mut taken = take(&*first, 5).await;
    let kept = taken.pop().expect("five came");
    ack(&*first, vec![kept]).await;
    first.close().await;
    let second = bench.source("two").await;
    let start = Instant::now();
    let again = take(&*second, 4).await;
    assert!(start.elapsed() < SOON, "handed back only after {:?}", start.elapsed());
    assert_eq!(again.iter().map(body).collect::<HashSet<_>>(), taken.iter().map(body).collect());
}

pub(super) async fn two_consumers_share_events_and_if_one_dies_the_other_receives_its_events<B: Bench>(
    bench: &B,
) {
    let (sink, first, second) = (bench.sink().await, bench.source("one").await, bench.source("two").await);
    // Both wait before events come, so that neither receives all.
    assert_quiet(&*first, Duration::from_millis(100)).await;
    assert_quiet(&*second, Duration::from_millis(100)).await;
    let published = events(60);
    publish(&*sink, &published).await;
    let (of_first, of_second) = tokio::join!(take(&*first, 20), take(&*second, 20));
    let of_first: HashSet<_> = of_first.iter().map(body).collect();
    let mut got: HashSet<_> = of_second.iter().map(body).collect();
    assert!(of_first.is_disjoint(&got), "an event went to both");
    ack(&*second, of_second).await;
    drop(first);
    let rest = take(&*second, 40).await;
    got.extend(rest.iter().map(body));
    assert_eq!(got, bodies(&published));
    ack(&*second, rest).await;
}

pub(super) async fn a_cancelled_receive_loses_nothing<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published = events(60);
    let mut missing = bodies(&published);
    let publishing = async {
        for batch in published.chunks(5) {
            publish(&*sink, batch).await;
        }
    };
    let consuming = async {
        let start = Instant::now();
        let mut patience = 1;
        while !missing.is_empty() {
            assert!(start.elapsed() < LIMIT, "{} events did not come", missing.len());
            let cancelled_after = Duration::from_millis(patience % 97);
            patience += 13;
            let received = source.receive(10, Duration::from_secs(5));
            if let Ok(batch) = tokio::time::timeout(cancelled_after, received).await {
                let batch = batch.expect("the broker is well");
                for delivery in &batch {
                    missing.remove(&body(delivery));
                }
                ack(&*source, batch).await;
            }
        }
    };
    tokio::join!(publishing, consuming);
}
