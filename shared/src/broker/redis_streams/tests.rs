//! A Redis for each test, and what only this backend promises.

mod reading_ahead;
mod server;

use std::time::Duration;

use redis::{AsyncCommands as _, aio::MultiplexedConnection};
use secrecy::SecretString;
use testbed::{PrivateRedis, Proxy, RedisDb, eventually, native::Server};
use uuid::Uuid;

use super::{RedisStreamsOptions, RedisStreamsSink, RedisStreamsSource};
use crate::{
    broker::{
        Delivery, EventSink, EventSource, PublishOutcome,
        contract::{Bench, DEAD_AFTER, HEARTBEAT, Restarts},
    },
    domain::event::Envelope,
};

/// A logical database behind a proxy.
pub(in crate::broker) struct RedisBench {
    db: RedisDb,
    proxy: Proxy,
}

/// Short waits, as far as a busy machine allows.
fn options(proxy: &Proxy, database: &str) -> RedisStreamsOptions {
    RedisStreamsOptions {
        min_idle: DEAD_AFTER,
        heartbeat: HEARTBEAT,
        reclaim_every: Duration::from_millis(100),
        tidy_every: Duration::from_millis(200),
        consumer_expiry: Duration::from_secs(2),
        ..RedisStreamsOptions::new(SecretString::from(format!("redis://{}/{database}", proxy.addr())))
    }
}

impl RedisBench {
    fn options(&self) -> RedisStreamsOptions {
        let (_, database) = self.db.url().rsplit_once('/').expect("a database in the URL");
        options(&self.proxy, database)
    }

    async fn redis_source(&self, consumer: &str) -> RedisStreamsSource {
        RedisStreamsSource::connect(self.options(), consumer).await.expect("a source")
    }

    async fn publish(&self, count: i64) {
        let outcomes = self.sink().await.publish(&events(count)).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, PublishOutcome::Confirmed)), "{outcomes:?}");
    }
}

impl Bench for RedisBench {
    async fn start() -> Self {
        let db = testbed::redis().await;
        let (_, rest) = db.url().split_once("://").expect("a URL");
        let server = rest.split_once('/').map_or(rest, |(server, _)| server);
        let proxy = Proxy::start(server).await;
        Self { db, proxy }
    }

    async fn sink(&self) -> Box<dyn EventSink> {
        Box::new(RedisStreamsSink::connect(&self.options()).await.expect("a sink"))
    }

    async fn source(&self, consumer: &str) -> Box<dyn EventSource> {
        Box::new(self.redis_source(consumer).await)
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

/// A server of its own that keeps what it has confirmed.
pub(in crate::broker) struct DurableRedisBench {
    server: PrivateRedis,
    proxy: Proxy,
}

impl Bench for DurableRedisBench {
    async fn start() -> Self {
        let server = testbed::private_durable_redis().await;
        let proxy = Proxy::start(&server.address()).await;
        Self { server, proxy }
    }

    async fn sink(&self) -> Box<dyn EventSink> {
        Box::new(RedisStreamsSink::connect(&options(&self.proxy, "0")).await.expect("a sink"))
    }

    async fn source(&self, consumer: &str) -> Box<dyn EventSource> {
        let source = RedisStreamsSource::connect(options(&self.proxy, "0"), consumer).await;
        Box::new(source.expect("a source"))
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

impl Restarts for DurableRedisBench {
    fn server(&self) -> &Server {
        self.server.server()
    }
}

const STREAM: &str = "events:orders";
const GROUP: &str = "workers";

/// Bodies of a size that fills a node of the stream with a few entries.
fn events(count: i64) -> Vec<Envelope> {
    (1..=count)
        .map(|key| Envelope {
            id: Uuid::now_v7(),
            event_type: "OrderCreated".to_owned(),
            key,
            sequence: 1,
            position: Some(key),
            body: format!(r#"{{"key":{key},"padding":"{}"}}"#, "p".repeat(1000)),
        })
        .collect()
}

#[tokio::test]
async fn an_entry_has_the_position_of_its_event_beside_the_unchanged_body() {
    let bench = RedisBench::start().await;
    let mut event = events(1).remove(0);
    event.position = Some(i64::MAX);
    bench.sink().await.publish(std::slice::from_ref(&event)).await;
    let mut redis = bench.db.connect().await;
    let entries: redis::streams::StreamRangeReply = redis.xrange_all(STREAM).await.expect("XRANGE");
    let fields = &entries.ids[0].map;
    assert_eq!(fields.len(), 2, "{fields:?}");
    let text = |name: &str| redis::from_redis_value::<String>(fields[name].clone()).expect(name);
    assert_eq!((text("position"), text("body")), (i64::MAX.to_string(), event.body));
}

async fn length(redis: &mut MultiplexedConnection) -> usize {
    redis.xlen(STREAM).await.expect("XLEN")
}

async fn consumers(redis: &mut MultiplexedConnection) -> usize {
    let info: redis::streams::StreamInfoConsumersReply =
        redis.xinfo_consumers(STREAM, GROUP).await.expect("XINFO CONSUMERS");
    info.consumers.len()
}

async fn take(source: &RedisStreamsSource, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(source.receive(count - taken.len(), Duration::from_secs(5)).await.expect("received"));
    }
    taken
}

async fn ack(source: &RedisStreamsSource, deliveries: Vec<Delivery>) {
    source.settle(deliveries.into_iter().map(Delivery::ack).collect()).await.expect("acknowledged");
}

#[tokio::test]
async fn only_entries_that_every_group_has_acknowledged_are_trimmed() {
    let bench = RedisBench::start().await;
    let mut redis = bench.db.connect().await;
    let source = bench.redis_source("one").await;
    let _: () = redis.xgroup_create_mkstream(STREAM, "others", "0").await.expect("another group");
    bench.publish(200).await;
    let mut taken = take(&source, 200).await;
    let unsettled = taken.split_off(150);
    ack(&source, taken).await;

    let trims = source.state.group.tidy().await.expect("tidied");
    assert_eq!((trims.0, length(&mut redis).await), (0, 200), "the other group has read nothing");

    let _: redis::Value = redis::cmd("XREADGROUP")
        .arg("GROUP")
        .arg("others")
        .arg("reader")
        .arg("NOACK")
        .arg("STREAMS")
        .arg(STREAM)
        .arg(">")
        .query_async(&mut redis)
        .await
        .expect("the other group has read everything");
    eventually("what both have is trimmed", async || length(&mut bench.db.connect().await).await < 60).await;
    source.state.group.tidy().await.expect("tidied");
    assert!(length(&mut redis).await >= 50, "what is pending stays");
    ack(&source, unsettled).await;
    eventually("the rest is trimmed", async || length(&mut bench.db.connect().await).await < 10).await;
}

#[tokio::test]
async fn a_flushed_redis_recovers_without_a_restart() {
    let bench = RedisBench::start().await;
    let mut redis = bench.db.connect().await;
    let source = bench.redis_source("one").await;
    bench.publish(5).await;
    let taken = take(&source, 5).await;
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.expect("flushed");
    // Acknowledging what is gone is no error.
    ack(&source, taken).await;
    assert_eq!(source.backlog().await.expect("a backlog").messages, 0);
    bench.publish(3).await;
    assert_eq!(take(&source, 3).await.len(), 3);
}

#[tokio::test]
async fn a_redis_flushed_while_a_receive_blocks_recovers_without_a_restart() {
    let bench = RedisBench::start().await;
    let mut redis = bench.db.connect().await;
    let source = bench.redis_source("one").await;
    let (taken, ()) = tokio::join!(take(&source, 4), async {
        let database = bench.db.url().rsplit_once('/').expect("a database").1;
        eventually("it blocks", async || {
            let clients: String =
                redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.expect("CLIENT LIST");
            let blocked =
                |line: &str| line.contains(&format!(" db={database} ")) && line.contains(" cmd=xreadgroup ");
            clients.lines().any(blocked)
        })
        .await;
        let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.expect("flushed");
        bench.publish(4).await;
    });
    assert_eq!(taken.len(), 4);
}

#[tokio::test]
async fn a_heartbeat_leaves_the_attempts_alone_and_the_entry_with_its_owner() {
    let bench = RedisBench::start().await;
    let source = bench.redis_source("one").await;
    bench.publish(1).await;
    let taken = take(&source, 1).await;
    let ids = vec![taken[0].receipt.clone()];
    for _ in 0..3 {
        source.state.group.reset_idle(&ids).await.expect("touched");
    }
    let pending = source.state.group.pending(&ids).await.expect("pending");
    assert_eq!(pending, [Some((source.state.group.consumer().to_owned(), 1))]);
}

#[tokio::test]
async fn a_heartbeat_never_takes_an_entry_back_from_another_consumer() {
    let bench = RedisBench::start().await;
    let (first, second) = (bench.redis_source("one").await, bench.redis_source("two").await);
    bench.publish(1).await;
    let taken = take(&first, 1).await;
    let ids = vec![taken[0].receipt.clone()];
    second.state.group.claim(&ids).await.expect("taken over");
    eventually("the first one has noticed", async || first.state.in_flight().all().is_empty()).await;
    let pending = first.state.group.pending(&ids).await.expect("pending");
    assert_eq!(pending, [Some((second.state.group.consumer().to_owned(), 2))]);
}

#[tokio::test]
async fn many_entries_of_a_dead_consumer_are_taken_over_in_several_steps() {
    let bench = RedisBench::start().await;
    let dead = bench.redis_source("dead").await;
    bench.publish(300).await;
    let held = take(&dead, 300).await;
    dead.close().await;
    drop(held);
    let heir = bench.redis_source("heir").await;
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 300 {
        let batch = heir.receive(40, Duration::from_secs(5)).await.expect("received");
        assert!(batch.len() <= 40);
        seen.extend(batch.into_iter().map(|delivery| delivery.receipt));
    }
}

#[tokio::test]
async fn consumers_that_are_gone_are_removed_unless_they_have_pending_entries() {
    let bench = RedisBench::start().await;
    let mut redis = bench.db.connect().await;
    let keeper = bench.redis_source("keeper").await;
    let (idle, holder) = (bench.redis_source("idle").await, bench.redis_source("holder").await);
    // Redis knows a consumer from its first entry on.
    bench.publish(2).await;
    let (held, done) = (take(&holder, 1).await, take(&idle, 1).await);
    ack(&idle, done).await;
    assert_eq!(consumers(&mut redis).await, 2);
    drop((idle, holder, held));
    let other = bench.redis_source("other").await;
    eventually("only what holds something is left", async || {
        let _tidied = other.state.group.tidy().await;
        consumers(&mut bench.db.connect().await).await == 1
    })
    .await;
    assert_eq!(keeper.backlog().await.expect("a backlog").messages, 1, "nothing pending was dropped");
    assert_eq!(take(&keeper, 1).await[0].attempt, 2);
}

#[tokio::test]
async fn a_closed_consumer_that_holds_nothing_is_removed_from_the_group() {
    let bench = RedisBench::start().await;
    let mut redis = bench.db.connect().await;
    let source = bench.redis_source("one").await;
    bench.publish(1).await;
    let taken = take(&source, 1).await;
    ack(&source, taken).await;
    source.close().await;
    assert_eq!(consumers(&mut redis).await, 0);
}

#[tokio::test]
async fn the_backlog_has_the_age_of_the_oldest_and_is_still_known_if_redis_cannot_report_the_lag() {
    let bench = RedisBench::start().await;
    let mut redis = bench.db.connect().await;
    let source = bench.redis_source("one").await;
    let now: (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.expect("TIME");
    let old = format!("{}-1", (now.0 - 90) * 1000);
    let _: String = redis.xadd(STREAM, old, &[("body", "{}")]).await.expect("an old entry");
    bench.publish(4).await;
    let backlog = source.backlog().await.expect("a backlog");
    assert_eq!(backlog.messages, 5);
    let age = backlog.oldest_age.expect("an age");
    assert!((Duration::from_secs(89)..Duration::from_mins(2)).contains(&age), "{age:?}");

    let taken = take(&source, 2).await;
    assert_eq!(source.backlog().await.expect("a backlog").messages, 5, "delivered but not settled counts");
    // A hole in the part that is not read yet: Redis no longer tells the lag.
    let range: redis::streams::StreamRangeReply = redis.xrange_all(STREAM).await.expect("XRANGE");
    let _: usize = redis.xdel(STREAM, &[&range.ids[3].id]).await.expect("XDEL");
    let messages = source.backlog().await.expect("a backlog").messages;
    assert!((4..=5).contains(&messages), "{messages}");
    drop(taken);
}

#[tokio::test]
async fn an_entry_of_another_publisher_is_delivered_with_its_fields() {
    let bench = RedisBench::start().await;
    let mut redis = bench.db.connect().await;
    let source = bench.redis_source("one").await;
    let _: String = redis.xadd(STREAM, "*", &[("foo", "bar")]).await.expect("XADD");
    assert_eq!(&take(&source, 1).await[0].body[..], br#"{"fields":[["foo","bar"]]}"#);
}

#[tokio::test]
async fn a_key_of_another_type_is_reported_as_misconfigured() {
    let bench = RedisBench::start().await;
    let mut redis = bench.db.connect().await;
    let _: () = redis.set(STREAM, "a string").await.expect("SET");
    let error = RedisStreamsSource::connect(bench.options(), "one").await.expect_err("no stream");
    assert!(matches!(error, crate::broker::BrokerError::Misconfigured { .. }), "{error}");
}

#[tokio::test]
async fn an_event_that_waits_for_its_next_attempt_is_taken_over_when_its_consumer_dies() {
    let bench = RedisBench::start().await;
    let first = bench.redis_source("one").await;
    bench.publish(1).await;
    let retried = take(&first, 1).await.into_iter().map(|delivery| delivery.retry(Duration::from_hours(1)));
    first.settle(retried.collect()).await.expect("settled");
    drop(first);
    let second = bench.redis_source("two").await;
    assert_eq!(take(&second, 1).await[0].attempt, 2);
}

#[tokio::test]
async fn the_check_fails_if_the_streams_key_holds_something_else() {
    let bench = RedisBench::start().await;
    let sink = bench.sink().await;
    sink.check().await.expect("no stream yet");
    bench.publish(1).await;
    sink.check().await.expect("a stream");
    let mut redis = bench.db.connect().await;
    let _: () = redis.set(STREAM, "not a stream").await.expect("it is set");
    let error = sink.check().await.expect_err("a text is no stream").to_string();
    assert!(error.contains("is a string and not a stream"), "{error}");
}
