//! Redis servers that replace each other: behind sentinels, and in a cluster.

use std::time::{Duration, Instant};

use bytes::Bytes;
use secrecy::SecretString;
use shared::{
    broker::{BrokerConfig, connect_source},
    cache::{Cache, CacheError, CacheWrite, CachedOrder, Lookup},
    domain::{order::OrderKey, tenant::TenantId},
    platform::redis::{Redis, check_url},
};
use testbed::{
    PrivateRedis, RedisGroup, connect_redis_masters, eventually, eventually_within, private_redis_cluster,
    private_redis_sentinel,
};

/// Within which everything works again after the promotion.
const RECOVERY: Duration = Duration::from_secs(15);
/// Long enough for a busy machine; the API has 50 ms.
const DEADLINE: Duration = Duration::from_millis(500);
/// How many orders the tests of a cluster use, so that each node has some.
const ORDERS: std::ops::RangeInclusive<i64> = 1..=30;

fn secret(url: &str) -> SecretString {
    SecretString::from(url.to_owned())
}

fn cache(url: &str) -> Cache {
    Cache::new(&secret(url), Duration::from_mins(10), DEADLINE).unwrap()
}

fn key(order: i64) -> OrderKey {
    OrderKey { tenant: TenantId::DEFAULT, id: order.try_into().unwrap() }
}

fn write(order: i64, version: i64) -> CacheWrite {
    let content = Some((7.try_into().unwrap(), Bytes::from(format!("version {version}"))));
    CacheWrite { order: key(order), version, content, may_create: true }
}

fn found(version: i64) -> Lookup {
    let body = Bytes::from(format!("version {version}"));
    Lookup::Found(CachedOrder { version, owner: 7.try_into().unwrap(), body })
}

/// Brings an order to the cache as a reader does.
async fn fill(cache: &Cache, order: i64, version: i64) -> Result<bool, CacheError> {
    let token = cache.begin_fill(&[key(order)]).await?;
    Ok(cache.fill(&token, &[write(order, version)]).await? == [true])
}

/// Brings orders to the cache, however long its servers need to begin.
async fn fill_all(cache: &Cache, orders: impl Iterator<Item = i64>, version: i64) {
    for order in orders {
        eventually("a reader's entry is stored", async || match fill(cache, order, version).await {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

async fn set(redis: &Redis, key: &str) -> Result<(), String> {
    let done = redis.at_key(key).run_command(redis::cmd("SET").arg(key).arg("x")).await;
    done.map_err(|failure| failure.to_string())
}

/// The key of an order's slot, as operators would look it up.
fn slot_key(order: i64) -> String {
    format!("{{order:{order}}}")
}

/// A promoted replica that lacks what was written last: nobody may read what it has of the time before.
async fn forgets_what_was_written_before_the_promotion(group: &RedisGroup) {
    let (cache, redis) = (cache(group.url()), Redis::new(&secret(group.url())).unwrap());
    fill_all(&cache, 1..=1, 1).await;
    let master = group.master_of(&slot_key(1)).await;
    group.wait_replicated(master).await;
    group.stop_replication(master).await;
    eventually("the newer version is stored", async || cache.put(&[write(1, 2)]).await).await;
    assert_eq!(eventually("it answers", async || cache.get(key(1)).await).await, found(2));

    master.kill();
    let killed = Instant::now();
    let _promoted = group.successor_of(master, &slot_key(1)).await;
    let start = Instant::now();
    eventually_within(RECOVERY, "the cache answers again", async || match cache.get(key(1)).await {
        Ok(Lookup::Miss) => Ok(()),
        Ok(old) => panic!("{old:?} is older than what was written"),
        Err(error) => Err(error),
    })
    .await;
    eventually_within(RECOVERY, "writes work again", async || set(&redis, &slot_key(1)).await).await;
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
    // An event that is late by the failover creates nothing: something newer may have been written before.
    let late = eventually("it takes an event", async || cache.put(&[write(1, 1)]).await).await;
    assert_eq!(late, [false]);
    // Neither does a reader for ten seconds: a replica that has not come here yet may have changed what it read.
    let is_filled = eventually("it takes an entry", async || fill(&cache, 1, 1).await).await;
    assert!(
        !is_filled || killed.elapsed() > Duration::from_secs(10),
        "filled {:?} after the kill",
        killed.elapsed()
    );
    fill_all(&cache, 1..=1, 2).await;
    // It says what it wrote; if that came too late, nothing is left to write for the next.
    eventually("the newest version is stored", async || cache.put(&[write(1, 3)]).await).await;
    assert_eq!(eventually("it answers", async || cache.get(key(1)).await).await, found(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_sentinels_a_promoted_replica_starts_with_a_cold_cache() {
    forgets_what_was_written_before_the_promotion(&private_redis_sentinel().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_promoted_replica_starts_with_a_cold_cache() {
    forgets_what_was_written_before_the_promotion(&private_redis_cluster().await).await;
}

/// A master that freezes, is replaced, and comes back believing that it is the master.
async fn leaves_a_frozen_master_for_good(group: &RedisGroup) {
    let (cache, redis) = (cache(group.url()), Redis::new(&secret(group.url())).unwrap());
    fill_all(&cache, 1..=1, 1).await;
    let old = group.master_of(&slot_key(1)).await;
    old.pause();
    let new = group.successor_of(old, &slot_key(1)).await;
    // Readers fill nothing for the first ten seconds.
    eventually_within(RECOVERY * 2, "a newer version is stored", async || match fill(&cache, 1, 2).await {
        Ok(true) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    old.resume();
    // Until the old one knows that it is a replica.
    let start = Instant::now();
    let mut is_replica = false;
    while !is_replica || start.elapsed() < Duration::from_secs(2) {
        for cache in [&cache, &self::cache(group.url())] {
            match cache.get(key(1)).await {
                Ok(Lookup::Miss) | Err(_) => {}
                Ok(entry) => assert_eq!(entry, found(2), "after {:?}", start.elapsed()),
            }
        }
        assert!(start.elapsed() < Duration::from_secs(40), "the old master is no replica yet");
        // The sentinels end the connections of a server that they make a replica, also the one that asks.
        is_replica = old.try_info("role").await.is_ok_and(|role| role == "slave");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("it is written", async || set(&redis, &slot_key(1)).await).await;
    let stored: String = new.ask(&["GET", &slot_key(1)]).await;
    assert_eq!(stored, "x", "it was written to the new master");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_sentinels_a_frozen_master_that_comes_back_is_not_read() {
    leaves_a_frozen_master_for_good(&private_redis_sentinel().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_frozen_master_that_comes_back_is_not_read() {
    leaves_a_frozen_master_for_good(&private_redis_cluster().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_leaves_a_master_that_lives_on_after_another_one_was_promoted() {
    let group = private_redis_sentinel().await;
    let config = BrokerConfig::RedisStreams { url: secret(group.url()) };
    let source = connect_source(&config, "test").await.unwrap();
    assert_eq!(source.receive(1, Duration::from_millis(10)).await.unwrap().len(), 0);
    let old = group.master_of("").await;
    group.sentinels()[0].ask::<()>(&["SENTINEL", "FAILOVER", "orders"]).await;
    let receiving = async {
        loop {
            match source.receive(1, Duration::from_secs(1)).await {
                Ok(received) if !received.is_empty() => return,
                // The old master refuses it, or is left.
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let promoting = async {
        let new = group.successor_of(old, "").await;
        new.ask::<String>(&["XADD", "events:orders", "*", "body", "{}"]).await;
        Instant::now()
    };
    let (published, received) = tokio::join!(promoting, async {
        receiving.await;
        Instant::now()
    });
    let after = received.duration_since(published);
    assert!(after < RECOVERY, "{after:?}");
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_most_sentinels_are_away_entries_are_not_read_and_everything_else_goes_on() {
    let group = private_redis_sentinel().await;
    let (cache, redis) = (cache(group.url()), Redis::new(&secret(group.url())).unwrap());
    fill_all(&cache, 1..=1, 1).await;
    eventually("it is written", async || set(&redis, "a").await).await;
    let (away, _rest) = group.sentinels().split_at(2);
    // One is not missed.
    away[0].pause();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        // A busy machine may confirm the primary late once; if all sentinels were needed, it would never be read again.
        eventually_within(Duration::from_secs(10), "it is read", async || cache.get(key(1)).await).await;
        // Read over and over, not waited for.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    away[1].pause();
    let refused = async || match cache.get(key(1)).await {
        Err(CacheError::Redis(failure)) if failure.to_string().contains("must confirm the primary") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    // After two seconds; a busy machine gets more.
    eventually_within(Duration::from_secs(10), "it is not read any more", refused).await;
    eventually("everything else goes on", async || set(&redis, "a").await).await;
    away.iter().for_each(PrivateRedis::resume);
    let read = eventually_within(RECOVERY, "it is read again", async || cache.get(key(1)).await).await;
    assert_eq!(read, found(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_does_not_fit_its_server_is_refused_with_the_one_that_does() {
    let (sentinels, cluster, single) =
        tokio::join!(private_redis_sentinel(), private_redis_cluster(), testbed::private_redis());
    for url in [sentinels.url(), cluster.url(), single.url(), "redis://127.0.0.1:1/0"] {
        assert_eq!(check_url(&secret(url)).await, Ok(()), "{url}");
    }
    let node = cluster.nodes()[0].url();
    let sentinel = sentinels.sentinels()[0].address();
    for (url, hint) in [
        (node.to_owned(), "write redis+cluster:// instead of redis://"),
        (format!("redis://{sentinel}/0"), "write redis+sentinel://"),
        (format!("redis+sentinel://{sentinel}/others"), "no primary named others"),
        (format!("redis+sentinel://{}/orders", single.address()), "is no sentinel"),
        (format!("redis+cluster://{}", single.address()), "write redis:// instead of redis+cluster://"),
    ] {
        let problem = check_url(&secret(&url)).await.expect_err(&url);
        assert!(problem.contains(hint), "{url}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_an_access_list_is_served_behind_sentinels_with_a_password_of_their_own() {
    let group = private_redis_sentinel().await;
    group.add_user("app", "p@ss").await;
    for sentinel in group.sentinels() {
        let rules = ["ACL", "SETUSER", "watch", "on", ">se&cret", "+@all", "~*", "&*"];
        sentinel.ask::<()>(&rules).await;
    }
    let url = |user: &str, sentinel_password: &str| {
        let url = group.url().replace("redis+sentinel://", &format!("redis+sentinel://{user}@"));
        format!("{url}?sentinel_user=watch&sentinel_password={sentinel_password}")
    };
    let right = url("app:p%40ss", "se%26cret");
    set(&Redis::new(&secret(&right)).unwrap(), "a").await.unwrap();
    fill_all(&cache(&right), 1..=1, 1).await;
    for wrong in [url("app:wrong", "se%26cret"), url("app:p%40ss", "wrong")] {
        assert!(set(&Redis::new(&secret(&wrong)).unwrap(), "a").await.is_err(), "{wrong}");
    }
    // Without INFO nobody knows which entries a promotion has left behind.
    for node in group.nodes() {
        node.ask::<()>(&["ACL", "SETUSER", "app", "-info"]).await;
    }
    let failure = cache(&right).get(key(1)).await.unwrap_err().to_string();
    assert!(failure.contains("must be allowed to use INFO"), "{failure}");
    set(&Redis::new(&secret(&right)).unwrap(), "a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entries_of_a_cluster_are_written_read_scanned_and_removed_on_every_node() {
    let group = private_redis_cluster().await;
    let cache = Cache::new(&secret(group.url()), Duration::from_mins(10), Duration::from_secs(5)).unwrap();
    let orders: Vec<OrderKey> = ORDERS.map(key).collect();
    let token = cache.begin_fill(&orders).await.unwrap();
    let first: Vec<CacheWrite> = ORDERS.map(|order| write(order, 1)).collect();
    assert!(cache.fill(&token, &first).await.unwrap().iter().all(|written| *written));
    for mut master in connect_redis_masters(group.url()).await.unwrap() {
        let size: u64 = redis::cmd("DBSIZE").query_async(&mut master).await.unwrap();
        assert!(size > 0, "every node has entries");
    }
    let second: Vec<CacheWrite> = ORDERS.rev().map(|order| write(order, 2 + order % 2)).collect();
    assert!(cache.put(&second).await.unwrap().iter().all(|written| *written));
    assert!(!cache.put(&first).await.unwrap().iter().any(|written| *written));
    let entries = cache.entries(&orders).await.unwrap();
    let lookups: Vec<_> = entries.iter().map(|entry| entry.as_ref().unwrap().lookup().unwrap()).collect();
    assert_eq!(lookups, ORDERS.map(|order| found(2 + order % 2)).collect::<Vec<_>>());
    let mut scan = cache.start_scan().await.unwrap();
    let mut scanned = Vec::new();
    while let Some(found) = scan.next_orders().await.unwrap() {
        scanned.extend(found);
    }
    scanned.sort_unstable();
    scanned.dedup();
    assert_eq!(scanned, orders);
    assert!(cache.remove_if_unchanged(orders[0], entries[0].as_ref().unwrap()).await.unwrap());
    cache.remove(orders[1]).await.unwrap();
    assert!(cache.purge().await.unwrap() >= orders.len() - 2);
    assert!(cache.entries(&orders).await.unwrap().iter().all(Option::is_none));
    cache.ping().await.unwrap();
    assert!(cache.check_writable().await.unwrap().used > 0);
}

/// The id of a cluster's node.
async fn node_id(node: &PrivateRedis) -> String {
    node.ask(&["CLUSTER", "MYID"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_follow_a_slot_while_it_moves_and_after_it_has_moved() {
    let group = private_redis_cluster().await;
    let redis = Redis::new(&secret(group.url())).unwrap().with_deadline(Duration::from_secs(5));
    let key = "a";
    set(&redis, key).await.unwrap();
    let source = group.master_of(key).await;
    // Its slot is of another third.
    let target = group.master_of("b").await;
    let (from, to) = (node_id(source).await, node_id(target).await);
    let slot = source.ask::<u64>(&["CLUSTER", "KEYSLOT", key]).await.to_string();
    target.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]).await;
    source.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]).await;
    let address = target.address();
    let (host, port) = address.split_once(':').unwrap();
    source.ask::<()>(&["MIGRATE", host, port, key, "0", "5000"]).await;

    // ASK: as a command, a pipeline and a script.
    set(&redis, key).await.unwrap();
    let handle = redis.at_key(key);
    let mut pipeline = redis::pipe();
    pipeline.cmd("APPEND").arg(key).arg("y").cmd("GET").arg(key);
    assert_eq!(handle.run_pipeline::<(u64, String)>(&pipeline).await.unwrap(), (2, "xy".to_owned()));
    pipeline.ignore_errors();
    let each = handle.run_pipeline_each(&pipeline).await.unwrap();
    assert_eq!(each, [redis::Value::Int(3), redis::Value::BulkString(b"xyy".to_vec())]);
    let script = redis::Script::new("return redis.call('APPEND', KEYS[1], ARGV[1])");
    let mut invocation = script.prepare_invoke();
    invocation.key(key).arg("z");
    assert_eq!(handle.run_script::<u64>(&invocation, Duration::from_secs(5)).await.unwrap(), 4);

    // MOVED.
    for node in [target, source] {
        node.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]).await;
    }
    assert_eq!(handle.run_script::<u64>(&invocation, Duration::from_secs(5)).await.unwrap(), 5);
    assert_eq!(handle.run_pipeline_each(&pipeline).await.unwrap()[0], redis::Value::Int(6));
    assert_eq!(target.ask::<String>(&["GET", key]).await, "xyyzzy");
}
