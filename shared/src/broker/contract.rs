//! The conformance suite: what every event system must do, run against each real broker.
//!
//! A new backend is one folder with a [`Bench`], and one line at the end of this file.

mod consumers;
mod outages;
mod publishing;
mod settling;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use testbed::{Proxy, native::Server};
use uuid::Uuid;

use super::{Delivery, EventSink, EventSource, PublishOutcome};
use crate::domain::event::Envelope;

/// A broker for one test: empty, not shared, and reached through a proxy that can fail as a network does.
pub(super) trait Bench: Sized {
    /// Whether events of one key are delivered in the order in which they were published.
    const ORDERED: bool = true;

    /// Starts it.
    async fn start() -> Self;

    /// A new sink.
    async fn sink(&self) -> Box<dyn EventSink>;

    /// A new source that takes over from a dead one after [`DEAD_AFTER`].
    async fn source(&self, consumer: &str) -> Box<dyn EventSource>;

    /// The proxy between these and the broker.
    fn proxy(&self) -> &Proxy;
}

/// A broker that is a process of this test only, and keeps confirmed events on disk.
pub(super) trait Restarts: Bench {
    /// The process.
    fn server(&self) -> &Server;
}

/// After this time without a heartbeat the suite's consumers count each other as dead.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(8);
/// By then what a dead consumer had would have been handed out again.
pub(super) const HANDED_OUT_AGAIN: Duration = Duration::from_secs(DEAD_AFTER.as_secs() + 4);
/// The interval of the heartbeats of the suite's consumers.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);
/// The limit for "at once", on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// The limit for recovery after every connection has become silent, also on the broker's side.
const RECOVERY: Duration = Duration::from_secs(20);
/// The limit of every wait.
const LIMIT: Duration = Duration::from_mins(1);

fn event(key: i64, sequence: i64) -> Envelope {
    let id = Uuid::now_v7();
    let body = format!(r#"{{"id":"{id}","sequence":{sequence}}}"#);
    Envelope { id, event_type: "OrderCreated".to_owned(), key, sequence, position: None, body }
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

/// Receives `count` events, and settles none.
async fn take(source: &dyn EventSource, count: usize) -> Vec<Delivery> {
    let start = Instant::now();
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(start.elapsed() < LIMIT, "only {} of {count} events within {LIMIT:?}", taken.len());
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

/// Asserts that no event comes within `wait`.
async fn assert_quiet(source: &dyn EventSource, wait: Duration) {
    let start = Instant::now();
    while start.elapsed() < wait {
        let left = wait.saturating_sub(start.elapsed());
        let came =
            source.receive(10, left.max(Duration::from_millis(1))).await.expect("the broker is available");
        assert!(came.is_empty(), "came although nothing should: {came:?}");
    }
}

/// Every rule of the contract as a test of one backend.
macro_rules! conformance {
    ($backend:ident: $bench:ty) => {
        conformance!(@tests $backend, $bench,
            publishing::everything_published_arrives,
            publishing::events_published_before_the_first_consumer_arrive,
            publishing::events_of_one_key_keep_their_order,
            publishing::a_rejected_event_is_reported_alone,
            publishing::payloads_of_any_size_and_script_arrive_unchanged,
            settling::an_acknowledged_event_does_not_come_again,
            settling::events_of_a_dead_consumer_come_again_as_the_next_attempt,
            settling::attempts_grow_with_each_delivery,
            settling::a_retried_event_comes_again_after_about_the_delay,
            settling::a_slow_handler_keeps_its_events,
            settling::the_backlog_counts_unsettled_events,
            consumers::an_empty_queue_returns_an_empty_batch_in_time,
            consumers::closing_wakes_a_blocked_receive_at_once,
            consumers::closing_releases_unsettled_events,
            consumers::two_consumers_share_events_and_if_one_dies_the_other_receives_its_events,
            consumers::a_cancelled_receive_loses_nothing,
            outages::an_unreachable_broker_is_reported_and_used_again_later,
            outages::a_broker_that_is_down_at_start_is_found_when_it_starts,
            outages::a_frozen_connection_does_not_block_a_publisher_forever,
            outages::silent_connections_are_replaced_within_seconds,
            outages::nothing_confirmed_is_lost_while_connections_are_cut,
        );
    };
    ($backend:ident restarted: $bench:ty) => {
        conformance!(@tests $backend, $bench,
            outages::nothing_confirmed_is_lost_while_the_broker_is_restarted,
        );
    };
    (@tests $backend:ident, $bench:ty, $($topic:ident::$sentence:ident,)+) => {
        mod $backend {
            use crate::broker::contract::Bench as _;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    super::$topic::$sentence(&<$bench>::start().await).await;
                }
            )+
        }
    };
}

conformance!(redis_streams: crate::broker::redis_streams::tests::RedisBench);
conformance!(rabbitmq: crate::broker::rabbitmq::tests::RabbitMqBench);
conformance!(sqs_standard: crate::broker::sqs::tests::StandardBench);
conformance!(sqs_fifo: crate::broker::sqs::tests::FifoBench);

// For SQS the connections are cut instead: LocalStack loses its data when it ends, and AWS is never restarted.
conformance!(redis_streams_durable restarted: crate::broker::redis_streams::tests::DurableRedisBench);
conformance!(rabbitmq_private restarted: crate::broker::rabbitmq::tests::PrivateRabbitMqBench);
