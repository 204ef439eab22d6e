//! Whether Redis takes writes, and how much room it has.

use redis::Value;

use super::{Redis, RedisFailure, info_field};

/// Memory counts as nearly full from this share of its limit, in percent.
const NEARLY_FULL: u64 = 90;
/// The probe's key lives for this long.
const PROBE_MS: u64 = 1000;

/// What Redis says of its memory. All zero if it does not say, as under an access list without `INFO`.
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
    /// Whether memory runs out: nine tenths of the limit or more are used.
    pub fn is_nearly_full(&self) -> bool {
        self.limit > 0 && u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(NEARLY_FULL)
    }
}

impl Redis {
    /// Has Redis take a cheap write, and says how its memory stands.
    ///
    /// Fails if Redis does not answer, or answers but refuses writes: because it is full, a replica, or cannot write to
    /// its disk (`OOM`, `READONLY`, `MISCONF`).
    pub async fn check_writable(&self) -> Result<RedisMemory, RedisFailure> {
        // Begins as the cache's keys do, so that a user who may write to the cache may write this, and is no order's.
        self.check_writable_beside("cache:").await
    }

    /// [`Redis::check_writable`], with a key that begins with `prefix`.
    pub(crate) async fn check_writable_beside(&self, prefix: &str) -> Result<RedisMemory, RedisFailure> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        pipeline.cmd("SET").arg(format!("{prefix}probe")).arg(1).arg("PX").arg(PROBE_MS);
        pipeline.cmd("INFO").arg("memory");
        pipeline.cmd("INFO").arg("stats");
        let answers = self.run_each(&pipeline).await?;
        match answers.first() {
            // What the user may not write there says nothing about the server.
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
