//! How much one address or one customer may ask for: exact across replicas while Redis answers, and counted by each
//! process for itself while it does not.
//!
//! The algorithm is GCRA, a leaky bucket that is one number per key: the time at which the bucket would be empty.

mod fields;
mod gcra;
mod local;
mod quota;

use std::{
    net::IpAddr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::Script;
use shared::{
    order::CustomerId,
    redis::{Redis, RedisFailure},
};

pub(crate) use fields::add_fields;
pub use fields::{RATE_LIMIT, RATE_LIMIT_POLICY};
pub use quota::{Quota, RateLimits};

use gcra::Verdict;
use local::Local;

/// A limit must not cost a request more than this; then the process counts for itself.
const DEADLINE: Duration = Duration::from_millis(50);
/// After a failure Redis is left alone for this long.
const BACK_OFF: Duration = Duration::from_secs(1);

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("gcra.lua")));

/// Counts requests against quotas.
pub struct Limits {
    quotas: RateLimits,
    redis: Redis,
    local: Local,
    start: Instant,
    /// Milliseconds after `start` until which Redis is left alone.
    away_until: AtomicU64,
}

/// What a limit says to one request.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// Which limit, as the `RateLimit` fields name it.
    pub policy: &'static str,
    /// How much it allows.
    pub quota: Quota,
    /// Whether this request is within it.
    pub allowed: bool,
    /// How many more requests would be, at once.
    pub remaining: u64,
    /// When the whole quota is there again.
    pub reset: Duration,
    /// When the next request would be allowed; zero where one is now.
    pub retry_after: Duration,
}

impl Limits {
    /// Counts against these quotas.
    pub fn new(quotas: RateLimits, redis: Redis) -> Self {
        Self { quotas, redis, local: Local::default(), start: Instant::now(), away_until: AtomicU64::new(0) }
    }

    /// Counts one request of an address. `None` where addresses are not limited.
    pub async fn address(&self, address: IpAddr) -> Option<Decision> {
        let quota = self.quotas.address?;
        Some(self.take("address", &network(address), quota).await)
    }

    /// Counts one request of a customer. `None` where customers are not limited.
    pub async fn customer(&self, customer: CustomerId) -> Option<Decision> {
        let quota = self.quotas.customer?;
        Some(self.take("customer", &customer.to_string(), quota).await)
    }

    /// Counts one request of `subject` against `quota`.
    pub async fn take(&self, policy: &'static str, subject: &str, quota: Quota) -> Decision {
        let verdict = self.count(&key(policy, subject), quota, 1).await;
        Decision {
            policy,
            quota,
            allowed: verdict.allowed,
            remaining: verdict.remaining(quota),
            reset: verdict.used,
            retry_after: verdict.wait,
        }
    }

    /// Takes back what [`Limits::take`] counted.
    pub async fn give_back(&self, policy: &'static str, subject: &str, quota: Quota) {
        self.count(&key(policy, subject), quota, -1).await;
    }

    async fn count(&self, key: &str, quota: Quota, cost: i32) -> Verdict {
        let now = self.start.elapsed();
        if now.as_millis() >= u128::from(self.away_until.load(Ordering::Relaxed)) {
            match self.count_in_redis(key, quota, cost).await {
                Ok(verdict) => return verdict,
                Err(error) => {
                    let until = u64::try_from((now + BACK_OFF).as_millis()).unwrap_or(u64::MAX);
                    self.away_until.store(until, Ordering::Relaxed);
                    tracing::warn!(error = %error, "limits are counted by this process alone");
                }
            }
        }
        self.local.count(key, quota, cost, now)
    }

    async fn count_in_redis(&self, key: &str, quota: Quota, cost: i32) -> Result<Verdict, RedisFailure> {
        let mut invocation = TAKE.prepare_invoke();
        invocation.key(key).arg(quota.interval_us()).arg(quota.window_us()).arg(cost);
        let (allowed, used, wait): (bool, u64, u64) = self.redis.invoke(&invocation, DEADLINE).await?;
        Ok(Verdict { allowed, used: Duration::from_micros(used), wait: Duration::from_micros(wait) })
    }
}

fn key(policy: &str, subject: &str) -> String {
    format!("limit:{policy}:{subject}")
}

/// Whom an address stands for: an IPv6 client has a whole /64 to itself.
fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}
