//! What every event system must do: one suite, run against each real broker.
//!
//! A new backend is one folder with a [`Bench`], and one line at the end of this file.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use testbed::{Proxy, eventually};
use uuid::Uuid;

use super::{Delivery, EventSink, EventSource, MAX_EVENT_BYTES, PublishOutcome};
use crate::event::Envelope;

/// A broker for one test: empty, of its own, and reached through a proxy that can fail as a network does.
pub(super) trait Bench: Sized {
    /// Whether events of one key come in the order in which they were published.
    const ORDERED: bool = true;

    /// Makes it.
    async fn start() -> Self;

    /// A new sink.
    async fn sink(&self) -> Box<dyn EventSink>;

    /// A new source that takes over from a dead one after [`PATIENCE`].
    async fn source(&self, consumer: &str) -> Box<dyn EventSource>;

    /// What stands between these and the broker.
    fn proxy(&self) -> &Proxy;
}

/// After which time the suite's consumers take each other for dead, where it is time that tells.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// How often the suite's consumers show that they live.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);
/// The bound of what should be "at once", on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(10);
/// The bound of everything that is waited for.
const BOUND: Duration = Duration::from_mins(1);

fn event(key: i64, sequence: i64) -> Envelope {
    let id = Uuid::now_v7();
    let body = format!(r#"{{"id":"{id}","sequence":{sequence}}}"#);
    Envelope { id, event_type: "OrderCreated".to_owned(), key, sequence, body }
}

fn events(count: i64) -> Vec<Envelope> {
    (1..=count).map(|key| event(key, 1)).collect()
}

fn bodies<'a>(events: impl IntoIterator<Item = &'a Envelope>) -> HashSet<String> {
    events.into_iter().map(|event| event.body.clone()).collect()
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body.to_vec()).expect("the suite publishes text")
}

fn assert_confirmed(outcomes: &[PublishOutcome]) {
    for outcome in outcomes {
        assert!(matches!(outcome, PublishOutcome::Confirmed), "not confirmed: {outcome:?}");
    }
}

async fn publish(sink: &dyn EventSink, batch: &[Envelope]) {
    let outcomes = sink.publish(batch).await;
    assert_eq!(outcomes.len(), batch.len());
    assert_confirmed(&outcomes);
}

/// Receives until there are `count`, and settles nothing.
async fn take(source: &dyn EventSource, count: usize) -> Vec<Delivery> {
    let start = Instant::now();
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(start.elapsed() < BOUND, "only {} of {count} events within {BOUND:?}", taken.len());
        let max = count - taken.len();
        let batch = source.receive(max, Duration::from_secs(1)).await.unwrap_or_default();
        assert!(batch.len() <= max, "{} events where at most {max} were asked for", batch.len());
        taken.extend(batch);
    }
    taken
}

async fn ack(source: &dyn EventSource, deliveries: Vec<Delivery>) {
    let settlements = deliveries.into_iter().map(Delivery::ack).collect();
    source.settle(settlements).await.expect("acknowledged");
}

/// Asserts that nothing comes for a while that is long enough for what should not come.
async fn assert_quiet(source: &dyn EventSource, wait: Duration) {
    let start = Instant::now();
    while start.elapsed() < wait {
        let left = wait.saturating_sub(start.elapsed());
        let came = source.receive(10, left.max(Duration::from_millis(1))).await.expect("the broker is well");
        assert!(came.is_empty(), "came although nothing should: {came:?}");
    }
}

async fn everything_published_arrives<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published = events(700);
    publish(&*sink, &published[..500]).await;
    publish(&*sink, &published[500..]).await;
    let taken = take(&*source, published.len()).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&published));
    assert!(taken.iter().all(|delivery| delivery.attempt == 1), "the first attempt is 1");
    let now = crate::clock::Clock::System.now();
    for at in taken.iter().filter_map(|delivery| delivery.published_at) {
        assert!((now - at).abs() < time::Duration::minutes(5), "published at {at}, and now is {now}");
    }
    ack(&*source, taken).await;
}

async fn what_was_published_before_any_consumer_came_arrives<B: Bench>(bench: &B) {
    let sink = bench.sink().await;
    let published = events(3);
    publish(&*sink, &published).await;
    sink.close().await;
    let source = bench.source("late").await;
    let taken = take(&*source, 3).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&published));
}

async fn events_of_one_key_keep_their_order<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published: Vec<_> = (1..=45).flat_map(|sequence| [event(1, sequence), event(2, sequence)]).collect();
    publish(&*sink, &published).await;
    let mut taken = Vec::new();
    while taken.len() < published.len() {
        // One after the other: a broker that keeps order may hand out the next ones only after these are settled.
        let batch = take(&*source, 1).await;
        taken.extend(batch.iter().map(body));
        ack(&*source, batch).await;
    }
    if B::ORDERED {
        for key in [1, 2] {
            let expected: Vec<_> =
                published.iter().filter(|event| event.key == key).map(|event| &event.body).collect();
            let seen: Vec<_> = taken.iter().filter(|body| expected.contains(body)).collect();
            assert_eq!(seen, expected);
        }
    } else {
        assert_eq!(taken.into_iter().collect::<HashSet<_>>(), bodies(&published));
    }
}

async fn nothing_acknowledged_comes_back<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    publish(&*sink, &events(30)).await;
    let taken = take(&*source, 30).await;
    ack(&*source, taken).await;
    source.close().await;
    let other = bench.source("two").await;
    assert_quiet(&*other, PATIENCE * 2).await;
}

async fn what_a_dead_consumer_held_comes_back_as_the_next_attempt<B: Bench>(bench: &B) {
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

async fn attempts_grow_with_each_delivery<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    publish(&*sink, &events(1)).await;
    for attempt in 1..=4 {
        let taken = take(&*source, 1).await;
        assert_eq!(taken[0].attempt, attempt);
        let again = taken.into_iter().map(|delivery| delivery.retry(Duration::ZERO)).collect();
        source.settle(again).await.expect("settled");
    }
}

async fn a_retried_event_comes_back_after_about_the_delay<B: Bench>(bench: &B) {
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
    // Brokers that count in whole seconds may be up to one early.
    assert!(waited + Duration::from_secs(1) >= DELAY, "came after {waited:?}");
    assert!(waited <= DELAY + SOON, "came after {waited:?}");
    assert_eq!(again[0].attempt, 2);
    assert_eq!(body(&again[0]), text);
    assert_eq!(again[0].published_at, published_at);
    ack(&*source, again).await;
    assert_quiet(&*source, PATIENCE + DELAY).await;
}

async fn a_rejected_event_is_reported_alone<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let mut batch = events(5);
    batch[2].body = "x".repeat(MAX_EVENT_BYTES + 1);
    let outcomes = sink.publish(&batch).await;
    assert_eq!(outcomes.len(), 5);
    assert!(
        matches!(&outcomes[2], PublishOutcome::Rejected(why) if why.contains("bytes")),
        "{:?}",
        outcomes[2]
    );
    let rejected = batch.remove(2);
    assert_confirmed(&outcomes[..2]);
    assert_confirmed(&outcomes[3..]);
    let taken = take(&*source, 4).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&batch));
    assert!(!taken.iter().any(|delivery| delivery.body == rejected.body));
}

async fn payloads_of_any_size_and_script_arrive_unchanged<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let mut batch = events(4);
    batch[0].body = "7".to_owned();
    batch[1].body = format!(r#""{}""#, "a".repeat(200 * 1024 - 2));
    batch[2].body = "\"Größe 東京 🛒 עברית e\u{301} \\u0000\"".to_owned();
    batch[3].body = "b".repeat(MAX_EVENT_BYTES);
    publish(&*sink, &batch).await;
    let taken = take(&*source, 4).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&batch));
}

async fn an_empty_queue_answers_with_an_empty_batch_in_time<B: Bench>(bench: &B) {
    let source = bench.source("one").await;
    for wait in [Duration::ZERO, Duration::from_millis(300)] {
        let start = Instant::now();
        let batch = source.receive(10, wait).await.expect("the broker is well");
        assert!(batch.is_empty());
        assert!(start.elapsed() < wait + SOON, "{:?}", start.elapsed());
    }
}

async fn closing_wakes_a_blocked_receive_at_once<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    // One event through, so that the receive after it is known to reach the broker.
    publish(&*sink, &events(1)).await;
    let taken = take(&*source, 1).await;
    ack(&*source, taken).await;
    let start = Instant::now();
    let (batch, ()) = tokio::join!(source.receive(10, BOUND), async {
        let _blocked = tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
        source.close().await;
    });
    assert!(batch.expect("closing is no error").is_empty());
    assert!(start.elapsed() < SOON, "closing took {:?}", start.elapsed());
    assert!(source.receive(10, BOUND).await.expect("closed is no error").is_empty());
    source.close().await;
}

async fn closing_hands_back_what_is_held<B: Bench>(bench: &B) {
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

async fn a_slow_handler_keeps_its_events<B: Bench>(bench: &B) {
    let (sink, slow) = (bench.sink().await, bench.source("slow").await);
    publish(&*sink, &events(5)).await;
    let taken = take(&*slow, 5).await;
    let other = bench.source("other").await;
    assert_quiet(&*other, PATIENCE * 2).await;
    ack(&*slow, taken).await;
    drop(slow);
    assert_quiet(&*other, PATIENCE * 2).await;
}

async fn two_consumers_share_and_when_one_dies_the_other_gets_its_part<B: Bench>(bench: &B) {
    let (sink, first, second) = (bench.sink().await, bench.source("one").await, bench.source("two").await);
    // Both wait before anything comes, so that neither finds everything.
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

async fn a_cancelled_receive_loses_nothing<B: Bench>(bench: &B) {
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
            assert!(start.elapsed() < BOUND, "{} events did not come", missing.len());
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

async fn the_backlog_counts_what_is_not_settled<B: Bench>(bench: &B) {
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

async fn an_unreachable_broker_is_reported_and_found_again<B: Bench>(bench: &B) {
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

async fn a_broker_that_is_not_there_at_start_is_found_when_it_comes<B: Bench>(bench: &B) {
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

async fn a_frozen_connection_does_not_hold_a_publisher_for_ever<B: Bench>(bench: &B) {
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

async fn nothing_confirmed_is_lost_while_connections_are_cut<B: Bench>(bench: &B) {
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

/// Every sentence of the contract as a test against one backend.
macro_rules! conformance {
    ($backend:ident: $bench:ty) => {
        conformance!(@tests $backend, $bench,
            everything_published_arrives,
            what_was_published_before_any_consumer_came_arrives,
            events_of_one_key_keep_their_order,
            nothing_acknowledged_comes_back,
            what_a_dead_consumer_held_comes_back_as_the_next_attempt,
            attempts_grow_with_each_delivery,
            a_retried_event_comes_back_after_about_the_delay,
            a_rejected_event_is_reported_alone,
            payloads_of_any_size_and_script_arrive_unchanged,
            an_empty_queue_answers_with_an_empty_batch_in_time,
            closing_wakes_a_blocked_receive_at_once,
            closing_hands_back_what_is_held,
            a_slow_handler_keeps_its_events,
            two_consumers_share_and_when_one_dies_the_other_gets_its_part,
            a_cancelled_receive_loses_nothing,
            the_backlog_counts_what_is_not_settled,
            an_unreachable_broker_is_reported_and_found_again,
            a_broker_that_is_not_there_at_start_is_found_when_it_comes,
            a_frozen_connection_does_not_hold_a_publisher_for_ever,
            nothing_confirmed_is_lost_while_connections_are_cut,
        );
    };
    (@tests $backend:ident, $bench:ty, $($sentence:ident,)+) => {
        mod $backend {
            use crate::broker::contract::Bench as _;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    super::$sentence(&<$bench>::start().await).await;
                }
            )+
        }
    };
}

conformance!(redis_streams: crate::broker::redis_streams::tests::RedisBench);
conformance!(rabbitmq: crate::broker::rabbitmq::tests::RabbitMqBench);
conformance!(sqs_standard: crate::broker::sqs::tests::StandardBench);
conformance!(sqs_fifo: crate::broker::sqs::tests::FifoBench);
