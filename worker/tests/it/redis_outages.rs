//! Redis that falls silent or fails over: the worker goes on within seconds.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use shared::{
    broker::{BrokerConfig, connect_sink, connect_source},
    cache::Lookup,
    domain::clock::Clock,
    platform::shutdown::Shutdown,
};
use testbed::{Proxy, RedisGroup, eventually, eventually_within};
use worker::{
    cache_debts::CacheDebts,
    consumer::Consumer,
    handlers::{EventHandler, cache::CacheHandler, history::HistoryHandler},
};

use crate::support::{TTL, World, cache_at, events::event, impatient, key, publish_to};

/// Within which everything works again, on a machine that has other things to do.
const RECOVERY: Duration = Duration::from_secs(30);

/// Runs a worker on the Redis at `url` through an outage, during which events are published at `after`. Events create no cache entries
/// soon after a promotion that the worker can see.
async fn survives(url: String, after: &str, creates_entries: bool, fail: impl AsyncFnOnce()) {
    let world = World::new().await;
    let shutdown = Shutdown::new();
    let cache = cache_at(&url);
    let broker = |url: &str| BrokerConfig::RedisStreams { url: SecretString::from(url.to_owned()) };
    let sink = connect_sink(&broker(&url)).await.expect("the broker is up");
    let source = connect_source(&broker(&url), "test").await.expect("the broker is up");
    let handlers: Vec<Arc<dyn EventHandler>> = vec![
        Arc::new(HistoryHandler::new(world.db.clone(), &Shutdown::new())),
        Arc::new(CacheHandler::new(cache.clone(), world.db.clone(), TTL)),
    ];
    let debts = tokio::spawn(
        Arc::new(CacheDebts::new(world.db.clone(), cache.clone())).pay_until_shutdown(shutdown.clone()),
    );
    let consumer = Consumer::new(
        Arc::from(source),
        handlers,
        world.db.clone(),
        Clock::System,
        impatient(),
        shutdown.clone(),
    );
    let running = tokio::spawn(async move { consumer.consume_until_shutdown().await });
    let events: Vec<_> = (1..=300).map(|id| event(id, 1)).collect();
    publish_to(sink.as_ref(), &events[..100]).await;
    eventually("the first events are recorded", async || world.recorded().await.len() == 100).await;

    fail().await;
    // By another publisher, to whom nothing has happened.
    let others = connect_sink(&broker(after)).await.expect("the broker is up");
    publish_to(others.as_ref(), &events[100..200]).await;
    eventually_within(RECOVERY, "events are recorded again", async || world.recorded().await.len() == 200)
        .await;
    // Entries that could not be written meanwhile are debts, which are paid.
    eventually_within(RECOVERY, "nothing is owed to the cache", async || {
        let owed: i64 = sqlx::query_scalar("SELECT count(*) FROM cache_debts")
            .fetch_one(&world.db)
            .await
            .expect("a count");
        owed == 0
    })
    .await;
    eventually_within(RECOVERY, "the publisher goes on", async || sink.check().await).await;
    publish_to(sink.as_ref(), &events[200..]).await;
    eventually_within(RECOVERY, "the cache is used", async || {
        let entry = cache.get(key(300)).await;
        match entry {
            Ok(Lookup::Found(order)) => order.version == 1,
            Ok(Lookup::Miss) => !creates_entries,
            _ => false,
        }
    })
    .await;
    eventually("everything is recorded", async || world.recorded().await.len() == 300).await;
    assert_eq!(world.dead_letters().await, []);
    shutdown.begin();
    running.await.expect("the consumer ends");
    debts.await.expect("the payments end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_connections_to_redis_become_silent_continues_within_seconds() {
    let redis = testbed::redis().await;
    let (address, database) =
        redis.url().strip_prefix("redis://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let proxy = Proxy::start(address).await;
    let url = format!("redis://{}/{database}", proxy.addr());
    survives(url, redis.url(), true, async || proxy.silence()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_uses_the_new_primary_although_the_old_one_is_now_a_replica() {
    let (old, new) = tokio::join!(testbed::private_redis(), testbed::private_redis());
    let proxy = Proxy::start(old.address()).await;
    new.replicate(&old).await;
    survives(format!("redis://{}/0", proxy.addr()), new.url(), true, async || {
        new.promote().await;
        old.replicate(&new).await;
        proxy.lead_to(new.address());
    })
    .await;
}

/// Kills the master that holds the stream.
async fn survives_a_killed_master(group: RedisGroup) {
    survives(group.url().to_owned(), group.url(), false, async || {
        let master = group.master_of("events:orders").await;
        master.kill();
        group.successor_of(master, "events:orders").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_after_a_master_with_sentinels_was_killed() {
    survives_a_killed_master(testbed::private_redis_sentinel().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_after_a_master_of_a_cluster_was_killed() {
    survives_a_killed_master(testbed::private_redis_cluster().await).await;
}

/// Freezes the master that holds the stream, and has it come back when it was replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_leaves_a_frozen_master_that_was_replaced() {
    let group = testbed::private_redis_sentinel().await;
    survives(group.url().to_owned(), group.url(), false, async || {
        let master = group.master_of("events:orders").await;
        master.pause();
        group.successor_of(master, "events:orders").await;
        master.resume();
    })
    .await;
}
