//! Whether Redis takes writes, and how much memory it has left.

use futures_util::future::try_join_all;
use redis::Value;

use super::{Redis, RedisFailure, info_field};

/// Memory counts as nearly full from this share of its limit, in thousandths.
const NEARLY_FULL: u128 = 900;
/// The life of the probe's key in milliseconds.
const PROBE_MS: u64 = 1000;

/// The memory of Redis. All zero if Redis does not report it, as under an access list without `INFO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisMemory {
    /// Bytes used.
    pub used: u64,
    /// Bytes that may be used (`maxmemory`); 0 if there is no limit.
    pub limit: u64,
    /// Keys evicted since the server started.
    pub evicted_keys: u64,
}

impl RedisMemory {
    /// Whether at least nine tenths of the limit are used.
    pub fn is_nearly_full(&self) -> bool {
        self.per_mille_used() >= NEARLY_FULL
    }

    fn per_mille_used(&self) -> u128 {
        (u128::from(self.used) * 1000).checked_div(u128::from(self.limit)).unwrap_or_default()
    }
}

impl Redis {
    /// Makes a cheap write on each primary, and returns the state of the fullest one's memory.
    ///
    /// Fails if Redis does not answer, or answers but refuses writes: because it is full, a replica, or cannot write to
    /// its disk (`OOM`, `READONLY`, `MISCONF`).
    pub async fn check_writable(&self) -> Result<RedisMemory, RedisFailure> {
        let primaries = self.each_primary().await?;
        // The prefix of the cache's keys, so that a user with the right to write to the cache can write this; no order has it.
        let checks =
            primaries.iter().map(|(primary, tag)| primary.check_writable_at(format!("cache:probe{tag}")));
        let memories = try_join_all(checks).await?;
        let evicted_keys = memories.iter().map(|memory| memory.evicted_keys).sum();
        let fullest = memories.into_iter().max_by_key(RedisMemory::per_mille_used).unwrap_or_default();
        Ok(RedisMemory { evicted_keys, ..fullest })
    }

    /// [`Redis::check_writable`] with this key, on its server.
    pub(crate) async fn check_writable_at(&self, key: String) -> Result<RedisMemory, RedisFailure> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        pipeline.cmd("SET").arg(key).arg(1).arg("PX").arg(PROBE_MS);
        pipeline.cmd("INFO").arg("memory");
        pipeline.cmd("INFO").arg("stats");
        let answers = self.run_pipeline_each(&pipeline).await?;
        match answers.first() {
            // That this user has no right to write there says nothing about the server.
            Some(Value::ServerError(error)) if error.code() != "NOPERM" => {
                return Err(redis::RedisError::from(error.clone()).into());
            }
            _ => {}
        }
        let number = |answer: usize, name: &str| {
            let info: Option<String> = redis::from_redis_value(answers.get(answer)?.clone()).ok();
            info_field(&info?, name)?.parse().ok()
        };
        Ok(RedisMemory {
            used: number(1, "used_memory").unwrap_or_default(),
            limit: number(1, "maxmemory").unwrap_or_default(),
            evicted_keys: number(2, "evicted_keys").unwrap_or_default(),
        })
    }
}
