//! The cache in a Redis that is full: what is read is never older than what was answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use rand::Rng as _;
use secrecy::SecretString;
use shared::{
    cache::{Cache, CacheWrite, Lookup},
    domain::{order::OrderKey, tenant::TenantId},
};
use testbed::PrivateRedis;

/// Room for cached orders beyond what the server itself needs.
const ROOM: u64 = 2 * 1024 * 1024;
/// An order of about fifty lines.
const BODY: usize = 8 * 1024;

fn key(order: i64) -> OrderKey {
    OrderKey { tenant: TenantId::DEFAULT, id: order.try_into().unwrap() }
}

fn write(order: i64, version: i64) -> CacheWrite {
    let content = Some((7.try_into().unwrap(), vec![b'x'; BODY].into()));
    CacheWrite { order: key(order), version, content, may_create: true }
}

fn cache(server: &PrivateRedis) -> Cache {
    let url = SecretString::from(server.url().to_owned());
    Cache::new(&url, Duration::from_hours(1), Duration::from_secs(5)).unwrap()
}

/// A server with little room for more than it holds now.
async fn limit(server: &PrivateRedis, policy: &str) {
    let limit = server.info("used_memory").await.parse::<u64>().unwrap() + ROOM;
    server.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", &limit.to_string()]).await;
}

/// Writes other orders until this one has been evicted.
async fn evict(cache: &Cache, order: i64) {
    for other in 0..1000 {
        let others: Vec<_> = (0..20).map(|place| write(1_000_000 + other * 20 + place, 1)).collect();
        cache.put(&others).await.unwrap();
        let others: Vec<_> = others.into_iter().map(|write| CacheWrite { version: 2, ..write }).collect();
        let token =
            cache.begin_fill(&others.iter().map(|write| write.order).collect::<Vec<_>>()).await.unwrap();
        cache.fill(&token, &others).await.unwrap();
        if cache.get(key(order)).await.unwrap() == Lookup::Miss {
            return;
        }
    }
    panic!("order {order} is not evicted");
}

#[tokio::test]
async fn once_keys_are_evicted_only_what_a_reader_has_just_read_creates_an_entry() {
    let server = testbed::private_redis().await;
    let cache = cache(&server);
    limit(&server, "volatile-ttl").await;
    assert_eq!(cache.put(&[write(1, 2)]).await.unwrap(), [true]);
    evict(&cache, 1).await;
    assert_ne!(server.info("evicted_keys").await, "0");
    // Events that come late, and a replica that was held up after its commit: version 3 may have been there.
    for version in [1, 2] {
        assert_eq!(cache.put(&[write(1, version)]).await.unwrap(), [false]);
        assert_eq!(cache.get(key(1)).await.unwrap(), Lookup::Miss);
    }
    let token = cache.begin_fill(&[key(1)]).await.unwrap();
    assert_eq!(cache.fill(&token, &[write(1, 3)]).await.unwrap(), [true]);
    assert_eq!(cache.put(&[write(1, 4)]).await.unwrap(), [true], "what is there is still raised");
}

#[tokio::test]
async fn without_room_for_the_new_version_the_old_one_goes() {
    let server = testbed::private_redis().await;
    let (here, there) = (cache(&server), cache(&server));
    here.put(&[write(1, 1), write(2, 1)]).await.unwrap();
    server.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
    for version in 2..=10 {
        // Whether or not there is room for it, this is an answered write.
        here.put(&[write(1, version), CacheWrite { content: None, ..write(2, version) }]).await.unwrap();
        match there.get(key(1)).await.unwrap() {
            Lookup::Miss => {}
            Lookup::Found(order) => assert_eq!(order.version, version),
            Lookup::Deleted { .. } => panic!("it was not deleted"),
        }
        assert!(!matches!(there.get(key(2)).await.unwrap(), Lookup::Found(_)), "it was deleted");
        assert!(there.begin_fill(&[key(3)]).await.is_err(), "Redis is full");
    }
    assert!(!here.is_open() && !there.is_open(), "a full Redis is not one that is gone");
}

/// Orders as the database has them, and as a client has received them.
struct Orders {
    committed: Vec<AtomicI64>,
    answered: Vec<AtomicI64>,
    over: AtomicBool,
}

impl Orders {
    fn new(orders: usize) -> Arc<Self> {
        let versions = || (0..orders).map(|_| AtomicI64::new(1)).collect();
        Arc::new(Self { committed: versions(), answered: versions(), over: AtomicBool::new(false) })
    }

    /// Any of them, until it is over: its place and its id.
    fn any(&self) -> Option<(usize, i64)> {
        let place = rand::rng().random_range(0..self.committed.len());
        (!self.over.load(Ordering::Relaxed)).then(|| (place, i64::try_from(place).unwrap() + 1))
    }

    /// Changes orders as the API does, and has each event come some milliseconds later, as the worker does.
    async fn keep_writing(self: Arc<Self>, cache: Cache) {
        while let Some((place, order)) = self.any() {
            let version = self.committed[place].fetch_add(1, Ordering::SeqCst) + 1;
            cache.put(&[write(order, version)]).await.unwrap();
            self.answered[place].fetch_max(version, Ordering::SeqCst);
            let cache = cache.clone();
            let lag = Duration::from_millis(rand::rng().random_range(0..50));
            tokio::spawn(async move {
                tokio::time::sleep(lag).await;
                let _dropped_at_the_end = cache.put(&[write(order, version)]).await;
            });
        }
    }

    /// Reads orders as the API does.
    async fn keep_reading(self: Arc<Self>, cache: Cache) {
        while let Some((place, order)) = self.any() {
            let known = self.answered[place].load(Ordering::SeqCst);
            match cache.get(key(order)).await.unwrap() {
                Lookup::Found(found) => {
                    assert!(found.version >= known, "{} of {known} of order {order}", found.version);
                }
                Lookup::Deleted { .. } => panic!("nothing is deleted"),
                Lookup::Miss => {
                    let token = cache.begin_fill(&[key(order)]).await.unwrap();
                    let read = self.committed[place].load(Ordering::SeqCst);
                    cache.fill(&token, &[write(order, read)]).await.unwrap();
                }
            }
        }
    }
}

/// In a cache that has room for some of the orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_eviction_no_read_is_older_than_an_answered_write() {
    let server = testbed::private_redis().await;
    let (writers, readers) = (cache(&server), cache(&server));
    limit(&server, "volatile-ttl").await;
    let orders = Orders::new(600);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        tasks.spawn(Arc::clone(&orders).keep_writing(writers.clone()));
        tasks.spawn(Arc::clone(&orders).keep_reading(readers.clone()));
    }
    let many = async || server.info("evicted_keys").await.parse::<u64>().is_ok_and(|evicted| evicted > 1000);
    testbed::eventually("many keys are evicted", many).await;
    orders.over.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}
