//! How much one address or one customer may ask for: exact across replicas while Redis answers, and counted by each
//! process for itself while it does not.
//!
//! The algorithm is GCRA, a leaky bucket that is one number per key: the time at which the bucket would be empty.

mod fields;
mod gcra;
mod local;
mod quota;
mod subject;

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
    domain::{clock::Clock, order::CustomerId},
    platform::redis::{Redis, RedisFailure},
};

pub(crate) use fields::add_fields;
pub use fields::{RATE_LIMIT, RATE_LIMIT_POLICY};
pub use quota::{Policy, Quota, RateLimits};
pub use subject::{Network, Subject};

use gcra::Verdict;
use local::Local;

/// After a failure Redis is left alone for this long.
const BACK_OFF: Duration = Duration::from_secs(1);

static ASK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("gcra.lua")));

/// Counts requests against quotas.
pub struct Limits {
    quotas: RateLimits,
    redis: Redis,
    local: Local,
    clock: Clock,
    start: Instant,
    /// Milliseconds after `start` until which Redis is left alone.
    away_until: AtomicU64,
}

/// What a limit says to one request.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// Which limit.
    pub policy: Policy,
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
    /// Counts against these quotas: by Redis' clock, unless a test owns the time.
    pub fn new(quotas: RateLimits, redis: Redis, clock: Clock) -> Self {
        let (local, start) = (Local::default(), Instant::now());
        Self { quotas, redis, local, clock, start, away_until: AtomicU64::new(0) }
    }

    /// Counts one request of an address. `None` where addresses are not limited.
    pub async fn address(&self, address: IpAddr) -> Option<Decision> {
        let policy = Policy { name: "address", counts: "requests", quota: self.quotas.address? };
        Some(self.take(policy, Subject::Network(address.into())).await)
    }

    /// Counts one request of a customer. `None` where customers are not limited.
    pub async fn customer(&self, customer: CustomerId) -> Option<Decision> {
        let policy = Policy { name: "customer", counts: "requests", quota: self.quotas.customer? };
        Some(self.take(policy, Subject::Customer(customer)).await)
    }

    /// Counts one more of what `policy` counts, if it allows one more.
    pub async fn take(&self, policy: Policy, subject: Subject<'_>) -> Decision {
        self.decide(policy, subject, true).await
    }

    /// Whether `policy` would allow one more. Counts nothing.
    pub async fn look(&self, policy: Policy, subject: Subject<'_>) -> Decision {
        self.decide(policy, subject, false).await
    }

    async fn decide(&self, policy: Policy, subject: Subject<'_>, counts: bool) -> Decision {
        let key = format!("limit:{}:{subject}", policy.name);
        let verdict = self.ask(&key, policy.quota, counts).await;
        Decision {
            policy,
            allowed: verdict.allowed,
            remaining: verdict.remaining(policy.quota),
            reset: verdict.used,
            retry_after: verdict.wait,
        }
    }

    async fn ask(&self, key: &str, quota: Quota, counts: bool) -> Verdict {
        let now = self.start.elapsed();
        if now.as_millis() >= u128::from(self.away_until.load(Ordering::Relaxed)) {
            match self.ask_redis(key, quota, counts).await {
                Ok(verdict) => return verdict,
                Err(error) => {
                    let until = u64::try_from((now + BACK_OFF).as_millis()).unwrap_or(u64::MAX);
                    self.away_until.store(until, Ordering::Relaxed);
                    tracing::warn!(error = %error, "limits are counted by this process alone");
                }
            }
        }
        self.local.ask(key, quota, counts, self.manual_time().unwrap_or(now))
    }

    async fn ask_redis(&self, key: &str, quota: Quota, counts: bool) -> Result<Verdict, RedisFailure> {
        let mut invocation = ASK.prepare_invoke();
        invocation
            .key(key)
            .arg(quota.interval_us())
            .arg(quota.window_us())
            .arg(if counts { "take" } else { "look" })
            .arg(self.manual_time().map_or_else(String::new, |time| time.as_micros().to_string()));
        let (allowed, used, wait): (bool, u64, u64) =
            self.redis.run_script(&invocation, self.quotas.deadline).await?;
        Ok(Verdict { allowed, used: Duration::from_micros(used), wait: Duration::from_micros(wait) })
    }

    /// The time since the Unix epoch where a test owns the clock. Otherwise Redis' clock counts, so that replicas agree.
    fn manual_time(&self) -> Option<Duration> {
        match self.clock {
            Clock::System => None,
            Clock::Manual(_) => (self.clock.now() - time::OffsetDateTime::UNIX_EPOCH).try_into().ok(),
        }
    }
}
