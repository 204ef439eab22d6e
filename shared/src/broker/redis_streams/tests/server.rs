//! A server that loses the stream, and one with little memory for it.

use std::time::Duration;

use secrecy::SecretString;
use testbed::{PrivateRedis, eventually};

use super::{ack, events, take};
use crate::{
    broker::{
        BrokerError, EventSink as _, EventSource as _, PublishOutcome,
        redis_streams::{RedisStreamsOptions, RedisStreamsSink, RedisStreamsSource},
    },
    domain::event::Envelope,
};

/// A Redis with so much memory and a session in it.
async fn server_with_a_session(memory: &str) -> PrivateRedis {
    let server = testbed::private_redis().await;
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", memory]).await;
    server.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    server.ask::<()>(&["SET", "session", "x", "PX", "3600000"]).await;
    server
}

/// Publishes batches until an event is refused: how many were taken before, and why.
async fn fill(sink: &RedisStreamsSink, mut batch: impl FnMut() -> Vec<Envelope>) -> (usize, String) {
    let mut published = 0;
    loop {
        let outcomes = sink.publish(&batch()).await;
        published += outcomes.iter().filter(|outcome| matches!(outcome, PublishOutcome::Confirmed)).count();
        assert!(published < 100_000, "it takes everything");
        for outcome in outcomes {
            match outcome {
                PublishOutcome::Confirmed => {}
                PublishOutcome::Retry(error @ BrokerError::Full { .. }) => {
                    return (published, error.to_string());
                }
                other => panic!("{other:?} after {published}"),
            }
        }
    }
}

#[tokio::test]
async fn the_room_of_a_stream_does_not_depend_on_its_first_events() {
    let large = || {
        let mut event = events(1).remove(0);
        event.body = "x".repeat(150_000);
        vec![event; 10]
    };
    for begins_large in [false, true] {
        let server = server_with_a_session("60mb").await;
        let url = SecretString::from(server.url().to_owned());
        let sink = RedisStreamsSink::connect(&RedisStreamsOptions::new(url)).await.expect("a sink");
        let mut is_first = true;
        let (published, _) =
            fill(&sink, || if std::mem::take(&mut is_first) == begins_large { large() } else { events(500) })
                .await;
        // 45 MB of events with 1 kB, or about as much of larger ones.
        let few = if begins_large { 20_000 } else { 250 };
        assert!(published > few, "{published}");
        assert_eq!(server.ask::<String>(&["GET", "session"]).await, "x");
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_leaves_room_for_what_else_redis_holds() {
    let server = server_with_a_session("60mb").await;
    let url = SecretString::from(server.url().to_owned());
    let options =
        RedisStreamsOptions { tidy_every: Duration::from_millis(200), ..RedisStreamsOptions::new(url) };
    let sink = RedisStreamsSink::connect(&options).await.expect("a sink");
    let source = RedisStreamsSource::connect(options, "one").await.expect("a source");
    let (published, refused) = fill(&sink, || events(500)).await;
    assert!(refused.contains("over 75 % of Redis' maxmemory"), "{refused}");
    assert!(published > 10_000, "only {published}");
    assert_eq!(server.ask::<String>(&["GET", "session"]).await, "x");
    // Once workers have handled some, the stream takes more.
    let all = take(&source, published).await;
    ack(&source, all).await;
    eventually("it takes events again", async || {
        sink.publish(&events(1)).await.iter().all(|outcome| matches!(outcome, PublishOutcome::Confirmed))
    })
    .await;
}

#[tokio::test]
async fn a_restarted_redis_that_has_lost_its_data_is_used_again() {
    let server = testbed::private_redis().await;
    let options = RedisStreamsOptions::new(SecretString::from(server.url().to_owned()));
    let sink = RedisStreamsSink::connect(&options).await.expect("a sink");
    let source = RedisStreamsSource::connect(options, "one").await.expect("a source");
    sink.publish(&events(3)).await;
    let before = take(&source, 3).await;
    server.kill();
    let outcomes = sink.publish(&events(2)).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PublishOutcome::Retry(_))), "{outcomes:?}");
    assert!(source.receive(1, Duration::from_millis(10)).await.is_err());
    server.start().await;
    eventually("it takes events again", async || {
        sink.publish(&events(1)).await.iter().all(|outcome| matches!(outcome, PublishOutcome::Confirmed))
    })
    .await;
    let after = eventually("they come", async || {
        source.receive(1, Duration::from_secs(1)).await.ok().filter(|batch| !batch.is_empty())
    })
    .await;
    assert_eq!(after[0].attempt, 1);
    // What was held of the lost stream is nobody's any more, and acknowledging it does no harm.
    ack(&source, before).await;
}
