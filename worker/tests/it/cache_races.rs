//! The compare-and-set of the cache against every order of events.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use proptest::{prelude::*, test_runner::TestRunner};
use shared::cache::{CacheWrite, CachedOrder, Lookup};
use worker::handlers::{EventHandler as _, cache::CacheHandler};

use crate::support::{
    World,
    events::{customer, deletion, event, fresh, late},
    key,
};

/// A write in short: version, whether it is a deletion, whether it may create.
type Write = (i64, bool, bool);

fn cache_write(id: i64, (version, deletes, may_create): Write) -> CacheWrite {
    let content = (!deletes).then(|| (customer(), Bytes::from(format!("body {version}"))));
    CacheWrite { order: key(id), version, content, may_create }
}

/// The entry that the rules leave after these writes.
fn model(writes: &[Write]) -> Option<Write> {
    writes.iter().fold(None, |held: Option<Write>, write| match held {
        Some(held) if write.0 <= held.0 => Some(held),
        None if !write.2 => None,
        _ => Some(*write),
    })
}

fn as_lookup(held: Option<Write>) -> Lookup {
    match held {
        None => Lookup::Miss,
        Some((version, true, _)) => Lookup::Deleted { version },
        Some((version, false, _)) => Lookup::Found(CachedOrder {
            version,
            owner: customer(),
            body: Bytes::from(format!("body {version}")),
        }),
    }
}

/// Versions 1 to `last`, of which the last may delete, each at least once, shuffled and doubled.
fn shuffled_life() -> impl Strategy<Value = Vec<Write>> {
    (1_i64..8, any::<bool>()).prop_flat_map(|(last, ends)| {
        let life: Vec<Write> = (1..=last).map(|version| (version, ends && version == last, true)).collect();
        let again = proptest::sample::subsequence(life.clone(), 0..=life.len());
        again.prop_map(move |again| [life.clone(), again].concat()).prop_shuffle()
    })
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

/// A property needs a thread that may block.
async fn blocking(property: impl FnOnce(&tokio::runtime::Handle) + Send + 'static) {
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || property(&handle)).await.expect("the property holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sequence_of_writes_leaves_what_the_rules_say() {
    let world = World::new().await;
    let cache = world.cache.clone();
    blocking(move |handle| {
        let next = AtomicI64::new(1);
        let writes = proptest::collection::vec((1_i64..6, any::<bool>(), any::<bool>()), 1..12);
        runner(200)
            .run(&writes, |writes| {
                let id = next.fetch_add(1, Ordering::SeqCst);
                let held = handle.block_on(async {
                    for write in &writes {
                        cache.put(&[cache_write(id, *write)]).await.expect("Redis is up");
                    }
                    cache.get(key(id)).await.expect("Redis is up")
                });
                prop_assert_eq!(held, as_lookup(model(&writes)));
                Ok(())
            })
            .expect("the property holds");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_writers_leave_the_newest_version_or_its_tombstone() {
    let world = World::new().await;
    let cache = world.cache.clone();
    blocking(move |handle| {
        let next = AtomicI64::new(1);
        runner(100)
            .run(&shuffled_life(), |life| {
                let id = next.fetch_add(1, Ordering::SeqCst);
                let newest = life.iter().copied().max();
                let held = handle.block_on(async {
                    let writers = life.iter().map(|write| {
                        let (cache, write) = (cache.clone(), cache_write(id, *write));
                        async move { cache.put(&[write]).await.expect("Redis is up") }
                    });
                    futures_util::future::join_all(writers).await;
                    cache.get(key(id)).await.expect("Redis is up")
                });
                prop_assert_eq!(held, as_lookup(newest));
                Ok(())
            })
            .expect("the property holds");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shuffled_doubled_and_late_events_leave_the_newest_version_and_create_nothing_late() {
    let world = World::new().await;
    let (cache, db) = (world.cache.clone(), world.db.clone());
    let ttl = crate::support::TTL;
    blocking(move |handle| {
        let next = AtomicI64::new(1);
        let life = (shuffled_life(), proptest::collection::vec(any::<bool>(), 16), 1_usize..6);
        runner(100)
            .run(&life, |(life, lateness, batch_size)| {
                let id = next.fetch_add(1, Ordering::SeqCst);
                let handler = CacheHandler::new(cache.clone(), db.clone(), ttl);
                let mut writes = Vec::new();
                let events: Vec<_> = life
                    .iter()
                    .zip(lateness)
                    .map(|((version, deletes, _), is_late)| {
                        writes.push((*version, *deletes, !is_late));
                        let event = if *deletes && *version > 1 {
                            deletion(id, *version)
                        } else {
                            event(id, *version)
                        };
                        if is_late { late(event) } else { fresh(event) }
                    })
                    .collect();
                let held = handle.block_on(async {
                    for batch in events.chunks(batch_size) {
                        handler.handle(batch).await.expect("Redis is up");
                    }
                    cache.get(key(id)).await.expect("Redis is up")
                });
                let version = match held {
                    Lookup::Miss => None,
                    Lookup::Deleted { version } => Some(version),
                    Lookup::Found(found) => Some(found.version),
                };
                // A batch is one step: within it, what may create and what is newest add up.
                let steps: Vec<Write> = writes
                    .chunks(batch_size)
                    .filter_map(|batch| {
                        let newest = batch.iter().map(|write| write.0).max()?;
                        Some((newest, false, batch.iter().any(|write| write.2)))
                    })
                    .collect();
                prop_assert_eq!(version, model(&steps).map(|write| write.0));
                Ok(())
            })
            .expect("the property holds");
    })
    .await;
}
