//! A queue for each test, on a real endpoint, and what only this backend promises.

use std::time::Duration;

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::QueueAttributeName,
};
use testbed::{Proxy, SqsNamespace, eventually};
use uuid::Uuid;

use super::{
    SqsOptions, SqsSink, SqsSource,
    queue::{retries, timeouts},
};
use crate::{
    broker::{
        BrokerError, Delivery, EventSink, EventSource, PublishOutcome,
        contract::{Bench, DEAD_AFTER, HANDED_OUT_AGAIN, HEARTBEAT},
    },
    domain::event::Envelope,
};

/// A queue behind a proxy.
pub(in crate::broker) struct TestQueue<const FIFO: bool> {
    admin: Client,
    client: Client,
    url: String,
    proxy: Proxy,
}

/// The default: no order.
pub(in crate::broker) type StandardBench = TestQueue<false>;
/// Keeps the order of each key.
pub(in crate::broker) type FifoBench = TestQueue<true>;

fn client(namespace: &SqsNamespace, endpoint: &str) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(namespace.region()))
        .credentials_provider(Credentials::new("test", "test", None, None, "testbed"))
        .timeout_config(timeouts())
        .retry_config(retries())
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

async fn create(admin: &Client, name: &str, fifo: bool) -> String {
    let mut call = admin.create_queue().queue_name(name);
    if fifo {
        call = call.attributes(QueueAttributeName::FifoQueue, "true");
    }
    call.send().await.expect("a queue").queue_url.expect("its URL")
}

impl<const FIFO: bool> TestQueue<FIFO> {
    /// Short waits, as far as a busy machine allows.
    fn options(&self) -> SqsOptions {
        SqsOptions {
            client: Some(self.client.clone()),
            visibility: DEAD_AFTER,
            heartbeat: HEARTBEAT * 2,
            ..SqsOptions::new(&self.url)
        }
    }

    async fn sqs_sink(&self) -> SqsSink {
        SqsSink::connect(&self.options()).await.expect("a sink")
    }

    async fn sqs_source(&self) -> SqsSource {
        SqsSource::connect(self.options()).await.expect("a source")
    }
}

impl<const FIFO: bool> Bench for TestQueue<FIFO> {
    const ORDERED: bool = FIFO;

    async fn start() -> Self {
        let namespace = testbed::sqs().await;
        let admin = client(&namespace, namespace.endpoint());
        let name = namespace.queue_name(if FIFO { "events.fifo" } else { "events" });
        let url = create(&admin, &name, FIFO).await;
        let (_, server) = namespace.endpoint().split_once("://").expect("a URL");
        let proxy = Proxy::start(server.trim_end_matches('/')).await;
        let client = client(&namespace, &format!("http://{}", proxy.addr()));
        Self { admin, client, url, proxy }
    }

    async fn sink(&self) -> Box<dyn EventSink> {
        Box::new(self.sqs_sink().await)
    }

    async fn source(&self, _consumer: &str) -> Box<dyn EventSource> {
        Box::new(self.sqs_source().await)
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

fn event(key: i64) -> Envelope {
    let body = format!(r#"{{"key":{key}}}"#);
    Envelope {
        id: Uuid::now_v7(),
        event_type: "OrderCreated".to_owned(),
        key,
        sequence: 1,
        position: None,
        body,
    }
}

#[tokio::test]
async fn a_message_has_the_position_of_its_event_beside_the_unchanged_body() {
    let bench = StandardBench::start().await;
    let event = Envelope { position: Some(i64::MAX), ..event(1) };
    assert_confirmed(&bench.sqs_sink().await.publish(std::slice::from_ref(&event)).await);
    let received = bench.admin.receive_message().queue_url(&bench.url).message_attribute_names("All");
    let received =
        received.wait_time_seconds(5).send().await.expect("an answer").messages.expect("a message");
    let attributes = received[0].message_attributes.as_ref().expect("attributes");
    assert_eq!(attributes["position"].string_value.as_deref(), Some("9223372036854775807"));
    assert_eq!(received[0].body.as_deref(), Some(event.body.as_str()));
}

async fn take(source: &SqsSource, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(source.receive(count - taken.len(), Duration::from_secs(5)).await.unwrap_or_default());
    }
    taken
}

fn assert_confirmed(outcomes: &[PublishOutcome]) {
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PublishOutcome::Confirmed)), "{outcomes:?}");
}

#[tokio::test]
async fn a_queue_that_does_not_exist_is_reported_as_misconfigured() {
    let bench = StandardBench::start().await;
    let options = SqsOptions { queue_url: format!("{}-missing", bench.url), ..bench.options() };
    for error in [
        SqsSink::connect(&options).await.map(|_| ()).expect_err("no queue"),
        SqsSource::connect(options.clone()).await.map(|_| ()).expect_err("no queue"),
    ] {
        assert!(matches!(error, BrokerError::Misconfigured { .. }), "{error}");
        assert!(error.to_string().contains("SQS_QUEUE_URL"), "{error}");
    }
}

#[tokio::test]
async fn an_entry_that_sqs_refuses_is_rejected_alone() {
    let bench = StandardBench::start().await;
    let sink = bench.sqs_sink().await;
    let mut batch: Vec<_> = (1..=3).map(event).collect();
    // A character that SQS does not carry.
    batch[1].body = "\u{1}".to_owned();
    let outcomes = sink.publish(&batch).await;
    assert!(matches!(outcomes[1], PublishOutcome::Rejected(_)), "{:?}", outcomes[1]);
    assert_confirmed(&outcomes[..1]);
    assert_confirmed(&outcomes[2..]);
}

#[tokio::test]
async fn an_event_larger_than_the_queue_takes_is_rejected_without_being_sent() {
    let bench = StandardBench::start().await;
    let options = SqsOptions { max_batch_bytes: 2000, ..bench.options() };
    let sink = SqsSink::connect(&options).await.expect("a sink");
    let mut batch: Vec<_> = (1..=12).map(event).collect();
    batch[5].body = "x".repeat(2001);
    batch[6].body = "y".repeat(2000);
    let outcomes = sink.publish(&batch).await;
    assert!(
        matches!(&outcomes[5], PublishOutcome::Rejected(why) if why.contains("2001")),
        "{:?}",
        outcomes[5]
    );
    assert_confirmed(&outcomes[..5]);
    assert_confirmed(&outcomes[6..]);
}

#[tokio::test]
async fn a_deleted_and_recreated_queue_is_used_again() {
    let bench = StandardBench::start().await;
    let (sink, source) = (bench.sqs_sink().await, bench.sqs_source().await);
    bench.admin.delete_queue().queue_url(&bench.url).send().await.expect("deleted");
    eventually("the sink says so", async || {
        matches!(sink.publish(&[event(1)]).await[0], PublishOutcome::Retry(BrokerError::Misconfigured { .. }))
    })
    .await;
    let name = bench.url.rsplit('/').next().expect("a name");
    // AWS and LocalStack refuse the same name for a minute after a deletion; other names need no test.
    eventually("the source says so", async || source.receive(1, Duration::ZERO).await.is_err()).await;
    let again = bench.admin.create_queue().queue_name(name).send().await;
    if again.is_ok() {
        eventually("it is used again", async || {
            matches!(sink.publish(&[event(2)]).await[0], PublishOutcome::Confirmed)
        })
        .await;
        assert_eq!(take(&source, 1).await[0].body, r#"{"key":2}"#);
    }
}

#[tokio::test]
async fn a_fifo_queue_takes_one_event_once_within_five_minutes() {
    let bench = FifoBench::start().await;
    let (sink, source) = (bench.sqs_sink().await, bench.sqs_source().await);
    let (one, two) = (event(1), event(2));
    assert_confirmed(&sink.publish(&[one.clone(), one.clone(), two.clone()]).await);
    assert_confirmed(&sink.publish(&[two, one]).await);
    let taken = take(&source, 2).await;
    assert_eq!(taken.len(), 2);
    source.settle(taken.into_iter().map(Delivery::ack).collect()).await.expect("settled");
    assert!(source.receive(10, HANDED_OUT_AGAIN).await.expect("received").is_empty());
}

#[tokio::test]
async fn republished_events_reach_consumers_of_a_fifo_queue_at_once_and_in_order() {
    let bench = FifoBench::start().await;
    let (sink, source) = (bench.sqs_sink().await, bench.sqs_source().await);
    let events = [1, 2, 3].map(|sequence| Envelope {
        sequence,
        body: format!(r#"{{"sequence":{sequence}}}"#),
        ..event(1)
    });
    assert_confirmed(&sink.publish(&events).await);
    for _ in 0..2 {
        for event in &events {
            let taken = take(&source, 1).await;
            assert_eq!(taken[0].body, event.body);
            source.settle(taken.into_iter().map(Delivery::ack).collect()).await.expect("settled");
        }
        assert_confirmed(&sink.republish(&events).await);
    }
    assert_eq!(take(&source, 1).await[0].body, events[0].body);
}

#[tokio::test]
async fn a_full_queue_is_received_in_batches_larger_than_ten() {
    let bench = StandardBench::start().await;
    let (sink, source) = (bench.sqs_sink().await, bench.sqs_source().await);
    let batch: Vec<_> = (1..=300).map(event).collect();
    assert_confirmed(&sink.publish(&batch).await);
    let (mut seen, mut largest) = (0, 0);
    while seen < 300 {
        let batch = source.receive(100, Duration::from_secs(5)).await.expect("received");
        assert!(batch.len() <= 100);
        largest = largest.max(batch.len());
        seen += batch.len();
        source.settle(batch.into_iter().map(Delivery::ack).collect()).await.expect("settled");
    }
    assert!(largest > 10, "at most {largest} came at once");
}
