//! How much one address, one customer or one tenant may ask for. The `RateLimit` header fields and 429 are in `http::layer`.
//!
//! Counts are exact across replicas while Redis answers; while it does not, each process counts for itself. The algorithm
//! is GCRA, a leaky bucket that is one number for each key: the time at which the bucket would be empty.

mod gcra;
mod limit_key;
mod local_buckets;
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
    domain::{clock::Clock, order::CustomerId, tenant::TenantId},
    platform::redis::{Redis, RedisFailure},
};

pub use limit_key::{LimitKey, Network};
pub use quota::{Policy, Quota, RateLimits};

use gcra::BucketState;
use local_buckets::LocalBuckets;

/// After a failure of Redis, the process counts alone for this long.
const BACK_OFF: Duration = Duration::from_secs(1);

static GCRA: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("gcra.lua")));

/// Counts requests against quotas.
pub struct RateLimiter {
    quotas: RateLimits,
    redis: Redis,
    local: LocalBuckets,
    clock: Clock,
    start: Instant,
    /// Redis is not asked until this many milliseconds after `start`.
    redis_paused_until: AtomicU64,
}

/// The result of checking one request against a limit.
#[derive(Clone, Copy, Debug)]
pub struct LimitCheck {
    /// Which limit.
    pub policy: Policy,
    /// Whether this request is within it.
    pub allowed: bool,
    /// How many more requests are allowed at once.
    pub remaining: u64,
    /// The time until the whole quota is there again.
    pub reset: Duration,
    /// The time until the next request is allowed; zero if one is allowed now.
    pub retry_after: Duration,
}

/// A request is beyond a limit.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {} {} in {} s", policy.quota.requests(), policy.counts, policy.quota.seconds())]
pub struct LimitExceeded {
    /// Which limit.
    pub policy: Policy,
    /// The time until the next request is allowed.
    pub retry_after: Duration,
}

impl LimitCheck {
    /// Fails if the request is beyond the limit.
    pub fn require_allowed(self) -> Result<(), LimitExceeded> {
        let Self { policy, allowed, retry_after, .. } = self;
        if allowed { Ok(()) } else { Err(LimitExceeded { policy, retry_after }) }
    }
}

impl RateLimiter {
    /// Counts against these quotas: by Redis' clock, unless a test owns the time.
    pub fn new(quotas: RateLimits, redis: Redis, clock: Clock) -> Self {
        let (local, start) = (LocalBuckets::default(), Instant::now());
        Self { quotas, redis, local, clock, start, redis_paused_until: AtomicU64::new(0) }
    }

    /// Counts one request of an address. Returns `None` if addresses are not limited.
    pub async fn count_address(&self, address: IpAddr) -> Option<LimitCheck> {
        let policy = Policy { name: "address", counts: "requests", quota: self.quotas.address? };
        Some(self.count(policy, LimitKey::Network(address.into())).await)
    }

    /// Counts one request of a customer. Returns `None` if customers are not limited.
    pub async fn count_customer(&self, tenant: TenantId, customer: CustomerId) -> Option<LimitCheck> {
        let policy = Policy { name: "customer", counts: "requests", quota: self.quotas.customer? };
        Some(self.count(policy, LimitKey::Customer(tenant, customer)).await)
    }

    /// Counts one request of a tenant with this quota. Returns `None` if it has none.
    pub async fn count_tenant(&self, tenant: TenantId, quota: Option<Quota>) -> Option<LimitCheck> {
        let policy = Policy { name: "tenant", counts: "requests of the tenant", quota: quota? };
        Some(self.count(policy, LimitKey::Tenant(tenant)).await)
    }

    /// Counts one more of what `policy` counts, if it allows one more.
    pub async fn count(&self, policy: Policy, key: LimitKey<'_>) -> LimitCheck {
        self.check(policy, key, true).await
    }

    /// Whether `policy` would allow one more. Counts nothing.
    pub async fn peek(&self, policy: Policy, key: LimitKey<'_>) -> LimitCheck {
        self.check(policy, key, false).await
    }

    async fn check(&self, policy: Policy, key: LimitKey<'_>, counts: bool) -> LimitCheck {
        let key = format!("limit:{}:{key}", policy.name);
        let bucket = self.check_bucket(&key, policy.quota, counts).await;
        LimitCheck {
            policy,
            allowed: bucket.allowed,
            remaining: bucket.remaining(policy.quota),
            reset: bucket.used,
            retry_after: bucket.wait,
        }
    }

    async fn check_bucket(&self, key: &str, quota: Quota, counts: bool) -> BucketState {
        let now = self.start.elapsed();
        if now.as_millis() >= u128::from(self.redis_paused_until.load(Ordering::Relaxed)) {
            match self.check_in_redis(key, quota, counts).await {
                Ok(bucket) => return bucket,
                Err(error) => {
                    let until = u64::try_from((now + BACK_OFF).as_millis()).unwrap_or(u64::MAX);
                    self.redis_paused_until.store(until, Ordering::Relaxed);
                    tracing::warn!(error = %error, "Redis does not answer: this process counts rate limits alone");
                }
            }
        }
        self.local.check(key, quota, counts, self.manual_time().unwrap_or(now))
    }

    async fn check_in_redis(
        &self,
        key: &str,
        quota: Quota,
        counts: bool,
    ) -> Result<BucketState, RedisFailure> {
        let mut invocation = GCRA.prepare_invoke();
        invocation
            .key(key)
            .arg(quota.interval_us())
            .arg(quota.window_us())
            .arg(if counts { "count" } else { "peek" })
            .arg(self.manual_time().map_or_else(String::new, |time| time.as_micros().to_string()));
        let (allowed, used, wait): (bool, u64, u64) =
            self.redis.at_key(key).run_script(&invocation, self.quotas.deadline).await?;
        Ok(BucketState { allowed, used: Duration::from_micros(used), wait: Duration::from_micros(wait) })
    }

    /// The time since the Unix epoch, if a test owns the clock. Otherwise Redis' clock counts, so that replicas agree.
    fn manual_time(&self) -> Option<Duration> {
        match self.clock {
            Clock::System => None,
            Clock::Manual(_) => (self.clock.now() - time::OffsetDateTime::UNIX_EPOCH).try_into().ok(),
        }
    }
}
