//! Entries of the cache and the script that writes them, in a real Redis. Whatever Redis holds and whatever is written, the
//! script works, the version never falls, and a read returns what was written.
//!
//! `REDIS_URL` names a Redis that the target can empty.

#![no_main]

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use fuzz::choice;
use libfuzzer_sys::fuzz_target;
use redis::aio::MultiplexedConnection;
use secrecy::SecretString;
use shared::{
    cache::{Cache, CacheWrite, CachedOrder, FillToken, KEY_PREFIX, Lookup},
    domain::{order::OrderKey, tenant::TenantId},
};
use tokio::runtime::Runtime;

struct World {
    runtime: Runtime,
    cache: Cache,
    redis: MultiplexedConnection,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let url = std::env::var("REDIS_URL").expect("REDIS_URL names a Redis that can be emptied");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ttl = Duration::from_mins(1);
    let cache =
        Cache::new(&SecretString::from(url.clone()), ttl, Duration::from_secs(5)).expect("an address");
    let client = redis::Client::open(url).expect("an address");
    let redis = runtime.block_on(client.get_multiplexed_async_connection()).expect("Redis answers");
    World { runtime, cache, redis }
});

fuzz_target!(|data: &[u8]| {
    let World { runtime, cache, redis } = &*WORLD;
    runtime.block_on(write_and_check(cache, redis.clone(), data));
});

fn order() -> OrderKey {
    OrderKey { tenant: TenantId::DEFAULT, id: 1.try_into().expect("positive") }
}

/// Stores the first part of the data, then does a write for every two bytes: the kind of write, and its version.
async fn write_and_check(cache: &Cache, mut redis: MultiplexedConnection, data: &[u8]) {
    let key = format!("{KEY_PREFIX}1");
    let Some((form, rest)) = choice(data) else { return };
    let (held, steps) = rest.split_at(usize::from(form >> 2).min(rest.len()));
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.expect("Redis answers");
    match form & 3 {
        0 => {}
        1 => () = redis::cmd("LPUSH").arg(&key).arg(held).query_async(&mut redis).await.expect("taken"),
        2 => {
            () = redis::cmd("HSET").arg(&key).arg("x").arg(held).query_async(&mut redis).await.expect("taken")
        }
        _ => () = redis::cmd("SET").arg(&key).arg(held).query_async(&mut redis).await.expect("taken"),
    }
    let before = cache.get(order()).await.expect("whatever is held can be looked at");
    check_held(&before, held);

    let mut token: Option<FillToken> = None;
    let mut seen = before;
    // An unreadable entry that begins with a version is not overwritten by lower versions.
    let mut in_the_way = begins_with_a_version(held) && form & 3 == 3;
    for step in steps.chunks_exact(2).take(16) {
        let write = write(step[0], step[1], steps);
        let (written, create) = match step[0] & 3 {
            0 => {
                let create = if write.may_create { Create::Always } else { Create::Never };
                (cache.put(std::slice::from_ref(&write)).await.expect("the script works"), create)
            }
            1 => {
                token = Some(cache.begin_fill(&[order()]).await.expect("Redis answers"));
                continue;
            }
            2 => match token.as_ref() {
                Some(token) => {
                    let written = cache.fill(token, std::slice::from_ref(&write)).await;
                    (written.expect("the script works"), Create::Perhaps)
                }
                None => continue,
            },
            _ => {
                cache.remove(order()).await.expect("Redis answers");
                (seen, in_the_way) = (Lookup::Miss, false);
                continue;
            }
        };
        let now = cache.get(order()).await.expect("Redis answers");
        if in_the_way && seen == Lookup::Miss {
            in_the_way = !written[0];
        } else {
            check_write(&seen, &write, create, written[0], &now);
        }
        seen = now;
    }
}

fn begins_with_a_version(held: &[u8]) -> bool {
    held.get(..20).is_some_and(|version| version[0] == b'0' && version.iter().all(u8::is_ascii_digit))
}

/// Redis holds an entry only if the cache would have written exactly these bytes.
fn check_held(lookup: &Lookup, held: &[u8]) {
    let written = match lookup {
        Lookup::Miss => return,
        Lookup::Deleted { version } => format!("{version:020}{:020}", 0).into_bytes(),
        Lookup::Found(CachedOrder { version, owner, body }) => {
            [format!("{version:020}{:020}", owner.get()).as_bytes(), body].concat()
        }
    };
    assert_eq!(written, held);
}

fn write(what: u8, version: u8, body: &[u8]) -> CacheWrite {
    let version = if version == 255 { i64::MAX } else { i64::from(version) + 1 };
    let content = (what & 4 == 0).then(|| {
        // One that ends so is incomplete, and counts as absent: only older programs write it.
        let body = if body.is_empty() || body.ends_with(b"]}") { b"{}" } else { body };
        (7.try_into().expect("positive"), Bytes::copy_from_slice(body))
    });
    CacheWrite { order: order(), version, content, may_create: what & 8 == 0 }
}

fn version(lookup: &Lookup) -> Option<i64> {
    match lookup {
        Lookup::Miss => None,
        Lookup::Deleted { version } => Some(*version),
        Lookup::Found(found) => Some(found.version),
    }
}

/// Whether a write creates an entry if there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Create {
    Always,
    Never,
    /// A reader's write, unless another write came first.
    Perhaps,
}

fn check_write(before: &Lookup, write: &CacheWrite, create: Create, written: bool, after: &Lookup) {
    if written {
        let expected = match &write.content {
            None => Lookup::Deleted { version: write.version },
            Some((owner, body)) => {
                Lookup::Found(CachedOrder { version: write.version, owner: *owner, body: body.clone() })
            }
        };
        assert_eq!(*after, expected, "what was written is read");
    } else {
        assert_eq!(after, before, "nothing was written");
    }
    match version(before) {
        Some(held) => assert_eq!(written, held < write.version, "the higher version stands"),
        // Also if Redis holds something that is no entry.
        None => assert!(if written { create != Create::Never } else { create != Create::Always }),
    }
}
