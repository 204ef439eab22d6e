//! What happens when the network or the broker fails.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use testbed::{eventually, eventually_within};
use tokio::sync::watch;

use super::{Bench, LIMIT, RECOVERY, Restarts, ack, bodies, body, events, publish, take};
use crate::{
    broker::{Delivery, EventSink, EventSource, PublishOutcome},
    domain::event::Envelope,
};

pub(super) async fn an_unreachable_broker_is_reported_and_used_again_later<B: Bench>(bench: &B) {
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
    // Some of the first attempt may have been stored all the same, and what was held over a lost connection comes again.
    let (expected, mut taken, start) = (bodies(&published), HashSet::new(), Instant::now());
    while !expected.is_subset(&taken) {
        assert!(start.elapsed() < LIMIT, "only {} events within {LIMIT:?}", taken.len());
        let batch = source.receive(12, Duration::from_secs(1)).await.unwrap_or_default();
        taken.extend(batch.iter().map(body));
        let _may_be_lost_again = source.settle(batch.into_iter().map(Delivery::ack).collect()).await;
    }
    assert_eq!(taken, expected);
}

pub(super) async fn a_broker_that_is_down_at_start_is_found_when_it_starts<B: Bench>(bench: &B) {
    // The broker is set up before: only the connection is missing.
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

pub(super) async fn a_frozen_connection_does_not_block_a_publisher_forever<B: Bench>(bench: &B) {
    let sink = bench.sink().await;
    publish(&*sink, &events(1)).await;
    bench.proxy().freeze();
    let published = events(3);
    let outcomes = tokio::time::timeout(LIMIT, sink.publish(&published)).await.expect("an answer in time");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PublishOutcome::Retry(_))), "{outcomes:?}");
    bench.proxy().cut();
    bench.proxy().thaw();
    eventually("the sink is well again", async || sink.check().await).await;
    publish(&*sink, &published).await;
}

/// As after a lost node, or a router that forgot its connections: the open connections are silent and are never closed.
pub(super) async fn silent_connections_are_replaced_within_seconds<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    // More than one connection, for backends with a pool of them.
    publish(&*sink, &events(60)).await;
    let before = take(&*source, 60).await;
    ack(&*source, before).await;
    bench.proxy().silence();
    let start = Instant::now();
    let published = events(60);
    let (confirmed, consumed) = (Progress::default(), Progress::default());
    tokio::join!(
        publish_until_confirmed(&*sink, &published, &confirmed),
        consume_all(&*source, &published, &consumed)
    );
    source.check().await.expect("the source is well");
    assert!(start.elapsed() < RECOVERY, "it took {:?}", start.elapsed());
}

pub(super) async fn nothing_confirmed_is_lost_while_connections_are_cut<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published = events(400);
    let cutting = async {
        for pause in [40, 150, 300, 500, 900] {
            let _pause =
                tokio::time::timeout(Duration::from_millis(pause), std::future::pending::<()>()).await;
            bench.proxy().cut();
        }
    };
    let (confirmed, consumed) = (Progress::default(), Progress::default());
    tokio::join!(
        publish_until_confirmed(&*sink, &published, &confirmed),
        cutting,
        consume_all(&*source, &published, &consumed)
    );
}

/// The broker is stopped or killed, and started again with its data on disk.
pub(super) async fn nothing_confirmed_is_lost_while_the_broker_is_restarted<B: Restarts>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published = events(400);
    let server = bench.server();
    let is_noticed = async || eventually("the sink says so", async || sink.check().await.is_err()).await;
    let (confirmed, consumed) = (Progress::default(), Progress::default());
    tokio::join!(publish_until_confirmed(&*sink, &published, &confirmed), async {
        // Stopped first: RabbitMQ forgets a new quorum queue if it is killed.
        confirmed.reaches(100).await;
        server.stop().await.expect("it stops");
        is_noticed().await;
        server.start().await.expect("it starts again");
        confirmed.reaches(250).await;
        server.kill();
        is_noticed().await;
        server.start().await.expect("it starts again");
    });
    tokio::join!(consume_all(&*source, &published, &consumed), async {
        consumed.reaches(100).await;
        server.kill();
        is_noticed().await;
        server.start().await.expect("it starts again");
    });
}

/// How many events have arrived so far.
#[derive(Default)]
struct Progress(watch::Sender<usize>);

impl Progress {
    fn is(&self, events: usize) {
        self.0.send_replace(events);
    }

    async fn reaches(&self, events: usize) {
        self.0.subscribe().wait_for(|done| *done >= events).await.expect("it goes on");
    }
}

/// Publishes as the relay does: unconfirmed events again, until all are confirmed.
async fn publish_until_confirmed(sink: &dyn EventSink, published: &[Envelope], confirmed: &Progress) {
    let start = Instant::now();
    let mut left = published.to_vec();
    let mut trouble = None;
    while !left.is_empty() {
        assert!(start.elapsed() < LIMIT * 3, "{} events not confirmed: {trouble:?}", left.len());
        let count = left.len().min(20);
        let mut outcomes = sink.publish(&left[..count]).await.into_iter();
        let mut retried = false;
        left.retain(|_| match outcomes.next() {
            Some(PublishOutcome::Confirmed) => false,
            Some(PublishOutcome::Rejected(why)) => panic!("rejected: {why}"),
            Some(PublishOutcome::Retry(error)) => {
                retried = true;
                trouble = Some(error);
                true
            }
            None => true,
        });
        confirmed.is(published.len() - left.len());
        if retried {
            eventually_within(LIMIT * 2, "the sink is well again", async || sink.check().await).await;
        }
    }
}

/// Consumes as the worker does, until all events have arrived.
async fn consume_all(source: &dyn EventSource, published: &[Envelope], consumed: &Progress) {
    let start = Instant::now();
    let mut missing = bodies(published);
    while !missing.is_empty() {
        assert!(start.elapsed() < LIMIT * 3, "{} confirmed events did not come", missing.len());
        // Errors are expected while the broker is down.
        let Ok(batch) = source.receive(25, Duration::from_secs(1)).await else {
            eventually_within(LIMIT * 2, "the source is well again", async || source.check().await).await;
            continue;
        };
        for delivery in &batch {
            missing.remove(&body(delivery));
        }
        consumed.is(published.len() - missing.len());
        // An event that could not be acknowledged comes again, and does no harm.
        let _unsettled = source.settle(batch.into_iter().map(Delivery::ack).collect()).await;
    }
}
