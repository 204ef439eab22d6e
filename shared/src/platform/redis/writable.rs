//! Whether Redis takes writes, and how much memory it has left.

use redis::Value;

use super::{Redis, RedisFailure, info_field};

/// Memory counts as nearly full from this share of its limit, in percent.
const NEARLY_FULL: u64 = 90;
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
        self.limit > 0 && u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(NEARLY_FULL)
    }
}

impl Redis {
    /// Makes a cheap write, and returns the state of the memory.
    ///
    /// Fails if Redis does not answer, or answers but refuses writes: because it is full, a replica, or cannot write to
    /// its disk (`OOM`, `READONLY`, `MISCONF`).
    pub async fn check_writable(&self) -> Result<RedisMemory, RedisFailure> {
        // The prefix of the cache's keys, so that a user with the right to write to the cache can write this; no order has it.
        self.check_writable_beside("cache:").await
    }

    /// [`Redis::check_writable`], with a key that begins with `prefix`.
    pub(crate) async fn check_writable_beside(&self, prefix: &str) -> Result<RedisMemory, RedisFailure> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        pipeline.cmd("SET").arg(format!("{prefix}probe")).arg(1).arg("PX").arg(PROBE_MS);
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
