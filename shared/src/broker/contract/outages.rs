//! Networks and brokers that fail.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use testbed::eventually;

use super::{BOUND, Bench, bodies, body, events, publish, take};
use crate::broker::{Delivery, PublishOutcome};

pub(super) async fn an_unreachable_broker_is_reported_and_found_again<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    sink.check().await.expect("the broker is well");
    source.check().await.expect("the broker is well");
    bench.proxy().refuse().await;
    bench.proxy().cut();
    let published = events(12);
    let outcomes = sink.publish(&published).await;
    assert_eq!(outcomes.len(), 12);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PublishOutcome::Retry(_))), "{outcomes:?}");
    eventually("the sink says so", async || sink.check().await.is_err()).await;
    eventually("the source says so", async || source.check().await.is_err()).await;
    bench.proxy().accept().await;
    eventually("the sink is well again", async || sink.check().await).await;
    eventually("the source is well again", async || source.check().await).await;
    publish(&*sink, &published).await;
    let taken = take(&*source, 12).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&published));
}

pub(super) async fn a_broker_that_is_not_there_at_start_is_found_when_it_comes<B: Bench>(bench: &B) {
    // What the broker must have is there before: only the connection is missing.
    bench.source("before").await.close().await;
    bench.proxy().refuse().await;
    bench.proxy().cut();
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    assert!(sink.check().await.is_err());
    bench.proxy().accept().await;
    eventually("the sink is well", async || sink.check().await).await;
    let published = events(2);
    publish(&*sink, &published).await;
    let taken = take(&*source, 2).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&published));
}

pub(super) async fn a_frozen_connection_does_not_hold_a_publisher_for_ever<B: Bench>(bench: &B) {
    let sink = bench.sink().await;
    publish(&*sink, &events(1)).await;
    bench.proxy().freeze();
    let published = events(3);
    let outcomes = tokio::time::timeout(BOUND, sink.publish(&published)).await.expect("an answer in time");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PublishOutcome::Retry(_))), "{outcomes:?}");
    bench.proxy().cut();
    bench.proxy().thaw();
    eventually("the sink is well again", async || sink.check().await).await;
    publish(&*sink, &published).await;
}

pub(super) async fn nothing_confirmed_is_lost_while_connections_are_cut<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published = events(400);
    let publishing = async {
        let start = Instant::now();
        let mut left = published.clone();
        while !left.is_empty() {
            assert!(start.elapsed() < BOUND, "{} events not confirmed", left.len());
            let count = left.len().min(20);
            let outcomes = sink.publish(&left[..count]).await;
            let mut outcomes = outcomes.into_iter();
            let mut retried = false;
            left.retain(|_| match outcomes.next() {
                Some(PublishOutcome::Confirmed) => false,
                Some(PublishOutcome::Rejected(why)) => panic!("rejected: {why}"),
                Some(PublishOutcome::Retry(_)) => {
                    retried = true;
                    true
                }
                None => true,
            });
            if retried {
                eventually("the sink is well again", async || sink.check().await).await;
            }
        }
    };
    let cutting = async {
        for pause in [40, 150, 300, 500, 900] {
            let _pause =
                tokio::time::timeout(Duration::from_millis(pause), std::future::pending::<()>()).await;
            bench.proxy().cut();
        }
    };
    let consuming = async {
        let start = Instant::now();
        let mut missing = bodies(&published);
        while !missing.is_empty() {
            assert!(start.elapsed() < BOUND, "{} confirmed events did not come", missing.len());
            // Errors while the connection is down are what this is about; the pause is the receiver's own.
            let batch = source.receive(25, Duration::from_secs(1)).await.unwrap_or_default();
            for delivery in &batch {
                missing.remove(&body(delivery));
            }
            // What could not be acknowledged comes again, and does no harm.
            let _unsettled = source.settle(batch.into_iter().map(Delivery::ack).collect()).await;
        }
    };
    tokio::join!(publishing, cutting, consuming);
}
