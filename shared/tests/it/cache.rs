//! The cache: the newest version remains, whatever the order of the writes.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use secrecy::SecretString;
use shared::{
    cache::{Cache, CacheError, CacheWrite, CachedOrder, KEY_PREFIX, Lookup},
    domain::{order::OrderKey, tenant::TenantId},
};
use testbed::{Proxy, RedisDb, eventually};

const TTL: Duration = Duration::from_mins(10);
/// Generous: these tests are not about the deadline.
const DEADLINE: Duration = Duration::from_secs(5);

fn cache(redis: &RedisDb) -> Cache {
    Cache::new(&SecretString::from(redis.url()), TTL, DEADLINE).unwrap()
}

fn key(order: i64) -> OrderKey {
    OrderKey { tenant: TenantId::DEFAULT, id: order.try_into().unwrap() }
}

fn body(version: i64) -> Bytes {
    Bytes::from(format!("{{\"version\":{version}}}"))
}

fn write(order: i64, version: i64) -> CacheWrite {
    let content = Some((7.try_into().unwrap(), body(version)));
    CacheWrite { order: key(order), version, content, may_create: true }
}

fn tombstone(order: i64, version: i64) -> CacheWrite {
    CacheWrite { content: None, ..write(order, version) }
}

fn late(write: CacheWrite) -> CacheWrite {
    CacheWrite { may_create: false, ..write }
}

fn found(version: i64) -> Lookup {
    Lookup::Found(CachedOrder { version, owner: 7.try_into().unwrap(), body: body(version) })
}

/// An entry without the last fields of an order, as programs of the version before write it.
fn incomplete(order: i64, version: i64) -> CacheWrite {
    let body = Bytes::from(format!("{{\"version\":{version},\"lines\":[]}}"));
    CacheWrite { content: Some((7.try_into().unwrap(), body)), ..write(order, version) }
}

#[tokio::test]
async fn an_incomplete_entry_counts_as_absent_and_gives_way_to_a_complete_one_of_its_version() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    for version in [1, 3] {
        let order = version;
        assert_eq!(cache.put(&[incomplete(order, version)]).await.unwrap(), [true]);
        assert_eq!(cache.get(key(order)).await.unwrap(), Lookup::Miss);
        assert_eq!(cache.put(&[incomplete(order, version)]).await.unwrap(), [false]);
        if version > 1 {
            assert_eq!(
                cache.put(&[write(order, version - 1)]).await.unwrap(),
                [false],
                "it keeps out older ones"
            );
            assert_eq!(cache.get(key(order)).await.unwrap(), Lookup::Miss);
        }
        // A reader fills it in, also one whose mark is gone: both have the same version.
        let token = cache.begin_fill(&[key(order)]).await.unwrap();
        assert_eq!(cache.fill(&token, &[write(order, version)]).await.unwrap(), [true]);
        assert_eq!(cache.get(key(order)).await.unwrap(), found(version));
        // A late event of the version before takes nothing away.
        assert_eq!(cache.put(&[incomplete(order, version)]).await.unwrap(), [false]);
        assert_eq!(cache.get(key(order)).await.unwrap(), found(version));
        assert_eq!(cache.put(&[incomplete(order, version + 1)]).await.unwrap(), [true]);
        assert_eq!(cache.get(key(order)).await.unwrap(), Lookup::Miss);
    }
}

#[tokio::test]
async fn an_entry_reads_as_it_was_written_and_expires() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    assert_eq!(cache.get(key(1)).await.unwrap(), Lookup::Miss);
    assert_eq!(cache.put(&[write(1, 3)]).await.unwrap(), [true]);
    assert_eq!(cache.get(key(1)).await.unwrap(), found(3));
    let mut connection = redis.connect().await;
    let ttl: u64 =
        redis::cmd("PTTL").arg(format!("{KEY_PREFIX}1")).query_async(&mut connection).await.unwrap();
    assert!(ttl > 500_000 && ttl < 670_000, "ten minutes, a tenth more or less: {ttl}");
    cache.remove(key(1)).await.unwrap();
    assert_eq!(cache.get(key(1)).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn an_order_is_found_with_its_own_tenant_only() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    let other = OrderKey { tenant: 2.try_into().unwrap(), ..key(1) };
    assert_eq!(cache.put(&[write(1, 3)]).await.unwrap(), [true]);
    assert_eq!(cache.get(other).await.unwrap(), Lookup::Miss);
    let written = cache.put(&[CacheWrite { order: other, ..write(1, 2) }, tombstone(2, 5)]).await.unwrap();
    assert_eq!(written, [true, true]);
    let entries = cache.entries(&[key(1), other, key(2)]).await.unwrap();
    let lookups: Vec<_> = entries.into_iter().flatten().filter_map(|entry| entry.lookup()).collect();
    assert_eq!(lookups, [found(3), found(2), Lookup::Deleted { version: 5 }]);
    let token = cache.begin_fill(&[key(3), OrderKey { id: key(3).id, ..other }]).await.unwrap();
    assert_eq!(cache.fill(&token, &[write(3, 1)]).await.unwrap(), [true]);
    assert_eq!(cache.get(OrderKey { id: key(3).id, ..other }).await.unwrap(), Lookup::Miss);
    let mut scanned = cache.start_scan().await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(orders) = scanned.next_orders().await.unwrap() {
        seen.extend(orders);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [key(1), key(2), key(3), other]);
    cache.remove(other).await.unwrap();
    assert_eq!(cache.get(key(1)).await.unwrap(), found(3));
}

/// One order's versions, some of them repeated or late, in any order; the last one may be a deletion.
fn histories() -> impl Strategy<Value = (Vec<(i64, bool)>, i64, bool)> {
    (2_i64..15, any::<bool>()).prop_flat_map(|(last, deleted)| {
        let versions = proptest::collection::vec((1..=last, any::<bool>()), 0..30);
        let all = versions.prop_map(move |mut versions| {
            versions.extend((1..=last).map(|version| (version, true)));
            versions
        });
        (all.prop_shuffle(), Just(last), Just(deleted))
    })
}

#[test]
fn shuffled_repeated_and_late_writes_leave_the_newest_version() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(testbed::redis());
    let cache = cache(&redis);
    let orders = AtomicI64::new(0);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(40) });
    runner
        .run(&histories(), |(versions, last, deleted)| {
            let order = orders.fetch_add(1, Ordering::Relaxed) + 1;
            runtime.block_on(async {
                for (version, on_time) in versions {
                    let write = if deleted && version == last {
                        tombstone(order, version)
                    } else {
                        write(order, version)
                    };
                    cache.put(&[if on_time { write } else { late(write) }]).await.unwrap();
                }
                let expected = if deleted { Lookup::Deleted { version: last } } else { found(last) };
                assert_eq!(cache.get(key(order)).await.unwrap(), expected);
            });
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_late_write_raises_an_entry_but_never_creates_one() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    assert_eq!(cache.put(&[late(write(1, 5))]).await.unwrap(), [false]);
    assert_eq!(cache.get(key(1)).await.unwrap(), Lookup::Miss);
    cache.put(&[write(1, 4)]).await.unwrap();
    assert_eq!(cache.put(&[late(write(1, 5)), late(write(2, 1))]).await.unwrap(), [true, false]);
    assert_eq!(cache.get(key(1)).await.unwrap(), found(5));
}

#[tokio::test]
async fn what_a_reader_brings_is_stored_unless_somebody_wrote_meanwhile() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    // Nobody wrote.
    let token = cache.begin_fill(&[key(1), key(2)]).await.unwrap();
    assert_eq!(cache.fill(&token, &[write(1, 1)]).await.unwrap(), [true]);
    // The entry was written, and stays.
    cache.put(&[write(2, 2)]).await.unwrap();
    assert_eq!(cache.fill(&token, &[write(2, 1)]).await.unwrap(), [false]);
    // Somebody wrote, and the entry has been evicted: what the reader has is older than what was answered.
    let mut connection = redis.connect().await;
    for written in [write(3, 2), tombstone(3, 2), late(write(3, 2))] {
        let token = cache.begin_fill(&[key(3)]).await.unwrap();
        cache.put(&[written]).await.unwrap();
        let () = redis::cmd("DEL").arg(format!("{KEY_PREFIX}3")).query_async(&mut connection).await.unwrap();
        assert_eq!(cache.fill(&token, &[write(3, 1)]).await.unwrap(), [false]);
        assert_eq!(cache.get(key(3)).await.unwrap(), Lookup::Miss);
    }
    // Everything was removed in between, or another reader came later: the same.
    let (token, other) =
        (cache.begin_fill(&[key(4)]).await.unwrap(), cache.begin_fill(&[key(4)]).await.unwrap());
    assert_eq!(cache.fill(&token, &[write(4, 1)]).await.unwrap(), [false]);
    cache.purge().await.unwrap();
    assert_eq!(cache.fill(&other, &[write(4, 1)]).await.unwrap(), [false]);
}

#[tokio::test]
async fn what_is_not_ours_is_no_entry_and_gives_way_to_one() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    let mut connection = redis.connect().await;
    let entry = format!("{KEY_PREFIX}1");
    let () = redis::cmd("LPUSH").arg(&entry).arg("x").query_async(&mut connection).await.unwrap();
    assert_eq!(cache.get(key(1)).await.unwrap(), Lookup::Miss);
    assert_eq!(cache.put(&[write(1, 1)]).await.unwrap(), [true]);
    assert_eq!(cache.get(key(1)).await.unwrap(), found(1));
    // Signs in place of digits, too: they are no version that was written here.
    let signed = "+000000000000000000900000000000000000007{}";
    for garbage in ["", "x", "9", "0000000000000000000x", "zzzzzzzzzzzzzzzzzzzzz", signed] {
        let () = redis::cmd("SET").arg(&entry).arg(garbage).query_async(&mut connection).await.unwrap();
        assert_eq!(cache.get(key(1)).await.unwrap(), Lookup::Miss, "{garbage:?}");
        assert_eq!(cache.put(&[late(write(1, 1))]).await.unwrap(), [false], "{garbage:?}");
        assert_eq!(cache.put(&[write(1, 1)]).await.unwrap(), [true], "{garbage:?}");
        assert_eq!(cache.get(key(1)).await.unwrap(), found(1), "{garbage:?}");
    }
}

#[tokio::test]
async fn a_purge_removes_every_entry_and_nothing_else() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    let writes: Vec<CacheWrite> = (1..=2500).map(|order| write(order, 1)).collect();
    cache.put(&writes).await.unwrap();
    let mut connection = redis.connect().await;
    let () = redis::cmd("SET").arg("session:1").arg("x").query_async(&mut connection).await.unwrap();
    assert_eq!(cache.purge().await.unwrap(), 2500);
    let left: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_connection_whose_peer_is_silently_gone_costs_little_and_is_replaced() {
    let redis = testbed::redis().await;
    let (address, database) = redis.url().strip_prefix("redis://").unwrap().split_once('/').unwrap();
    let proxy = Proxy::start(address).await;
    let url = SecretString::from(format!("redis://{}/{database}", proxy.addr()));
    let cache = Cache::new(&url, TTL, Duration::from_millis(50)).unwrap();
    eventually("it is written", async || cache.put(&[write(1, 1)]).await).await;

    proxy.freeze();
    let mut refused_at_once = 0;
    for _ in 0..100 {
        match cache.get(key(1)).await {
            Err(CacheError::Open) => refused_at_once += 1,
            Err(_) => {}
            Ok(found) => panic!("nothing gets through: {found:?}"),
        }
    }
    assert!(refused_at_once > 80, "the breaker spares most of the waiting: {refused_at_once}");
    assert!(cache.is_open());
    proxy.thaw();
    eventually("it answers again", async || cache.get(key(1)).await.is_ok_and(|entry| entry == found(1)))
        .await;
    assert!(!cache.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_that_share_a_round_trip_each_get_their_own_answer() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    // More than go into one round trip; every third order is missing.
    let entries: Vec<CacheWrite> =
        (1..=1000).filter(|order| order % 3 != 0).map(|order| write(order, order)).collect();
    cache.put(&entries).await.unwrap();
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(1000));
    let lookups: Vec<_> = (1..=1000)
        .map(|order| {
            let (cache, start) = (cache.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                (order, cache.get(key(order)).await.unwrap())
            })
        })
        .collect();
    for lookup in lookups {
        let (order, answer) = lookup.await.unwrap();
        assert_eq!(answer, if order % 3 == 0 { Lookup::Miss } else { found(order) });
    }
}

#[tokio::test]
async fn a_lookup_that_is_given_up_leaves_nobody_waiting() {
    let redis = testbed::redis().await;
    let cache = cache(&redis);
    cache.put(&[write(1, 1), write(2, 2)]).await.unwrap();
    for _ in 0..100 {
        let mut given_up = Box::pin(cache.get(key(1)));
        // Asked, and dropped before the answer.
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        assert_eq!(cache.get(key(2)).await.unwrap(), found(2));
    }
}
