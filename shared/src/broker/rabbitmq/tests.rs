//! A RabbitMQ virtual host for each test, and what only this backend promises.

use std::time::Duration;

use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{
        BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
        QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable},
};
use secrecy::SecretString;
use testbed::{PrivateRabbitMq, Proxy, Vhost, eventually, native::Server};
use uuid::Uuid;

use super::{RabbitMqOptions, RabbitMqSink, RabbitMqSource};
use crate::{
    broker::{
        BrokerError, Delivery, EventSink, EventSource, PublishOutcome,
        contract::{Bench, Restarts},
    },
    domain::event::Envelope,
};

/// A virtual host behind a proxy.
pub(in crate::broker) struct RabbitMqBench {
    vhost: Vhost,
    proxy: Proxy,
}

impl RabbitMqBench {
    fn options(&self) -> RabbitMqOptions {
        let (_, server) = server(self.vhost.url());
        let url = self.vhost.url().replace(server, &self.proxy.addr().to_string());
        RabbitMqOptions::new(SecretString::from(url))
    }

    async fn rabbit_sink(&self) -> RabbitMqSink {
        RabbitMqSink::connect(&self.options()).await.expect("a sink")
    }

    async fn rabbit_source(&self, consumer: &str) -> RabbitMqSource {
        RabbitMqSource::connect(self.options(), consumer).await.expect("a source")
    }

    /// A channel past the proxy and the code under test.
    async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(self.vhost.url(), ConnectionProperties::default())
            .await
            .expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        (connection, channel)
    }

    async fn queue_length(&self, queue: &str) -> u32 {
        let (_connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        queue.map_or(0, |queue| queue.message_count())
    }
}

/// A server of its own.
pub(in crate::broker) struct PrivateRabbitMqBench {
    server: PrivateRabbitMq,
    proxy: Proxy,
}

impl PrivateRabbitMqBench {
    fn options(&self) -> RabbitMqOptions {
        let url = self.server.url().replace(&self.server.address(), &self.proxy.addr().to_string());
        RabbitMqOptions::new(SecretString::from(url))
    }
}

impl Bench for PrivateRabbitMqBench {
    async fn start() -> Self {
        let server = testbed::private_rabbitmq().await;
        let proxy = Proxy::start(&server.address()).await;
        Self { server, proxy }
    }

    async fn sink(&self) -> Box<dyn EventSink> {
        Box::new(RabbitMqSink::connect(&self.options()).await.expect("a sink"))
    }

    async fn source(&self, consumer: &str) -> Box<dyn EventSource> {
        Box::new(RabbitMqSource::connect(self.options(), consumer).await.expect("a source"))
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

impl Restarts for PrivateRabbitMqBench {
    fn server(&self) -> &Server {
        self.server.server()
    }
}

/// The credentials and the host and port in a URL.
fn server(url: &str) -> (&str, &str) {
    let (_, rest) = url.split_once("://").expect("a URL");
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    authority.rsplit_once('@').unwrap_or(("", authority))
}

impl Bench for RabbitMqBench {
    async fn start() -> Self {
        let vhost = testbed::rabbitmq().await;
        let proxy = Proxy::start(server(vhost.url()).1).await;
        Self { vhost, proxy }
    }

    async fn sink(&self) -> Box<dyn EventSink> {
        Box::new(self.rabbit_sink().await)
    }

    async fn source(&self, consumer: &str) -> Box<dyn EventSource> {
        Box::new(self.rabbit_source(consumer).await)
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

fn event(event_type: &str, key: i64) -> Envelope {
    let body = format!(r#"{{"key":{key}}}"#);
    Envelope { id: Uuid::now_v7(), event_type: event_type.to_owned(), key, sequence: 1, position: None, body }
}

#[tokio::test]
async fn a_message_has_the_position_of_its_event_beside_the_unchanged_body() {
    let bench = RabbitMqBench::start().await;
    let sink = bench.rabbit_sink().await;
    // Declares the queue.
    bench.rabbit_source("a").await.close().await;
    let event = Envelope { position: Some(i64::MAX), ..event("OrderCreated", 1) };
    let outcomes = sink.publish(std::slice::from_ref(&event)).await;
    assert!(matches!(outcomes[..], [PublishOutcome::Confirmed]), "{outcomes:?}");
    let (_connection, channel) = bench.channel().await;
    let got = channel.basic_get(bench.options().queue.as_str().into(), BasicGetOptions::default()).await;
    let got = got.expect("an answer").expect("a message");
    let headers = got.properties.headers().as_ref().expect("headers");
    assert_eq!(headers.inner().get("position"), Some(&AMQPValue::LongLongInt(i64::MAX)));
    assert_eq!(got.data, event.body.as_bytes());
}

async fn take(source: &RabbitMqSource, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(source.receive(count - taken.len(), Duration::from_secs(5)).await.unwrap_or_default());
    }
    taken
}

#[tokio::test]
async fn a_returned_message_is_never_confirmed_and_its_neighbours_are() {
    let bench = RabbitMqBench::start().await;
    let sink = bench.rabbit_sink().await;
    let (_connection, channel) = bench.channel().await;
    // Only one type of event has a queue to go to.
    let (queue, exchange) = ("orders.history", "orders.events");
    channel
        .queue_unbind(queue.into(), exchange.into(), "#".into(), FieldTable::default())
        .await
        .expect("unbound");
    let bind = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), "OrderCreated".into(), bind, FieldTable::default())
        .await
        .expect("bound");
    let batch: Vec<_> =
        (1..=60).map(|key| event(if key % 3 == 0 { "OrderDeleted" } else { "OrderCreated" }, key)).collect();
    let outcomes = sink.publish(&batch).await;
    for (event, outcome) in batch.iter().zip(&outcomes) {
        match outcome {
            PublishOutcome::Confirmed => assert_eq!(event.event_type, "OrderCreated"),
            PublishOutcome::Retry(error) => {
                assert_eq!(event.event_type, "OrderDeleted");
                assert!(error.to_string().contains("no queue is bound"), "{error}");
            }
            PublishOutcome::Rejected(why) => panic!("rejected: {why}"),
        }
    }
    // A new session has declared the topology again.
    eventually("all are confirmed", async || {
        sink.publish(&batch).await.iter().all(|outcome| matches!(outcome, PublishOutcome::Confirmed))
    })
    .await;
}

#[tokio::test]
async fn a_message_that_the_broker_refuses_is_never_confirmed() {
    let bench = RabbitMqBench::start().await;
    let sink = bench.rabbit_sink().await;
    let full = r#"{"pattern":"^orders\\.history$","definition":{"max-length":2},"apply-to":"queues"}"#;
    let policy = format!("policies/{}/full", bench.vhost.name());
    let answer = bench.vhost.manage("PUT", &policy, Some(full)).await.expect("a policy");
    assert!(answer.is_success(), "{}", answer.body);
    eventually("the full queue refuses", async || {
        let outcomes = sink.publish(&[event("OrderCreated", 1)]).await;
        matches!(&outcomes[0], PublishOutcome::Retry(error) if error.to_string().contains("nack"))
    })
    .await;
    let length = bench.queue_length("orders.history").await;
    bench.vhost.manage("DELETE", &policy, None).await.expect("no policy");
    eventually("the queue takes messages again", async || {
        matches!(sink.publish(&[event("OrderCreated", 2)]).await[0], PublishOutcome::Confirmed)
    })
    .await;
    assert!(length >= 2);
}

#[tokio::test]
async fn a_queue_with_other_settings_is_reported_as_misconfigured() {
    let bench = RabbitMqBench::start().await;
    let (_connection, channel) = bench.channel().await;
    channel
        .queue_declare("orders.history".into(), QueueDeclareOptions::durable(), FieldTable::default())
        .await
        .expect("a classic queue");
    for error in [
        RabbitMqSink::connect(&bench.options()).await.map(|_| ()).expect_err("refused"),
        RabbitMqSource::connect(bench.options(), "one").await.map(|_| ()).expect_err("refused"),
    ] {
        assert!(matches!(error, BrokerError::Misconfigured { .. }), "{error}");
        assert!(error.to_string().contains("orders.history"), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_virtual_host_are_reported_as_misconfigured() {
    let bench = RabbitMqBench::start().await;
    let (credentials, server) = server(bench.vhost.url());
    for url in [
        bench.vhost.url().replace(credentials, "guest:wrong"),
        format!("amqp://{credentials}@{server}/no-such-vhost"),
    ] {
        let options = RabbitMqOptions::new(SecretString::from(url));
        let error = RabbitMqSink::connect(&options).await.map(|_| ()).expect_err("refused");
        assert!(matches!(error, BrokerError::Misconfigured { .. }), "{error}");
        assert!(!error.to_string().contains("guest:"), "{error}");
    }
}

#[tokio::test]
async fn a_deleted_queue_comes_back_under_a_sink_and_a_source() {
    let bench = RabbitMqBench::start().await;
    let (sink, source) = (bench.rabbit_sink().await, bench.rabbit_source("one").await);
    let (_connection, channel) = bench.channel().await;
    let none = source.receive(10, Duration::from_millis(1)).await.expect("connected");
    assert!(none.is_empty());
    let deleted = channel.queue_delete("orders.history".into(), QueueDeleteOptions::default()).await;
    deleted.expect("deleted");
    eventually("the sink has its queue again", async || {
        matches!(sink.publish(&[event("OrderCreated", 1)]).await[0], PublishOutcome::Confirmed)
    })
    .await;
    assert_eq!(take(&source, 1).await[0].body, r#"{"key":1}"#);
}

#[tokio::test]
async fn a_purged_queue_continues_to_work() {
    let bench = RabbitMqBench::start().await;
    let (sink, source) = (bench.rabbit_sink().await, bench.rabbit_source("one").await);
    sink.publish(&[event("OrderCreated", 1)]).await;
    let (_connection, channel) = bench.channel().await;
    channel.queue_purge("orders.history".into(), QueuePurgeOptions::default()).await.expect("purged");
    sink.publish(&[event("OrderCreated", 2)]).await;
    assert_eq!(take(&source, 1).await[0].body, r#"{"key":2}"#);
}

#[tokio::test]
async fn a_message_that_kills_its_consumers_ends_in_the_dead_letter_queue() {
    let bench = RabbitMqBench::start().await;
    let options = RabbitMqOptions { delivery_limit: 2, ..bench.options() };
    let sink = RabbitMqSink::connect(&options).await.expect("a sink");
    sink.publish(&[event("OrderCreated", 7)]).await;
    for attempt in 1..=3 {
        let victim = RabbitMqSource::connect(options.clone(), "victim").await.expect("a source");
        assert_eq!(take(&victim, 1).await[0].attempt, attempt);
        victim.close().await;
    }
    eventually("it is set aside", async || bench.queue_length("orders.dead").await == 1).await;
    let (_connection, channel) = bench.channel().await;
    let dead = channel.basic_get("orders.dead".into(), BasicGetOptions::default()).await.expect("got");
    assert_eq!(dead.expect("a message").delivery.data, br#"{"key":7}"#);
    assert_eq!(bench.queue_length("orders.history").await, 0);
}

#[tokio::test]
async fn a_long_delay_does_not_block_a_shorter_one_and_outlives_its_consumer() {
    let bench = RabbitMqBench::start().await;
    let (sink, source) = (bench.rabbit_sink().await, bench.rabbit_source("one").await);
    sink.publish(&[event("OrderCreated", 1), event("OrderCreated", 2)]).await;
    let mut settlements = Vec::new();
    for delivery in take(&source, 2).await {
        let long = delivery.body == r#"{"key":1}"#;
        settlements.push(delivery.retry(Duration::from_secs(if long { 4 } else { 1 })));
    }
    source.settle(settlements).await.expect("settled");
    assert_eq!(source.backlog().await.expect("a backlog").messages, 2, "what waits counts");
    source.close().await;
    let other = bench.rabbit_source("two").await;
    for body in [r#"{"key":2}"#, r#"{"key":1}"#] {
        let taken = take(&other, 1).await;
        assert_eq!(taken[0].body, body);
        assert_eq!(taken[0].attempt, 2);
    }
}

#[tokio::test]
async fn a_message_of_another_publisher_is_delivered_as_it_is() {
    let bench = RabbitMqBench::start().await;
    let source = bench.rabbit_source("one").await;
    let (_connection, channel) = bench.channel().await;
    channel
        .basic_publish(
            "".into(),
            "orders.history".into(),
            BasicPublishOptions::default(),
            b"\xff\xfe",
            lapin::BasicProperties::default(),
        )
        .await
        .expect("published");
    let taken = take(&source, 1).await;
    assert_eq!(taken[0].body.as_ref(), b"\xff\xfe");
    assert_eq!(taken[0].published_at, None);
    let retried = taken.into_iter().map(|delivery| delivery.retry(Duration::ZERO)).collect();
    source.settle(retried).await.expect("settled");
    assert_eq!(take(&source, 1).await[0].attempt, 2);
}
