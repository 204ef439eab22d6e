//! What every handler can use.

use std::{ops::Deref, sync::Arc};

use shared::{
    broker::EventSink,
    domain::clock::Clock,
    platform::{db::DbPool, redis::Redis, shutdown::Shutdown},
};

use crate::{
    auth::Auth,
    config::ApiConfig,
    feed::Feed,
    http::{health::monitor::HealthMonitor, orders::bulk_limits::BulkLimits},
    limits::RateLimiter,
    orders::Orders,
    outbox::Wake,
    tenants::Tenants,
};

/// The state of the API. Clones share one state.
#[derive(Clone)]
pub struct AppState(Arc<StateParts>);

/// The parts of [`AppState`].
pub struct StateParts {
    /// The settings.
    pub config: ApiConfig,
    /// What time it is.
    pub clock: Clock,
    /// PostgreSQL, current.
    pub db: DbPool,
    /// Redis for sessions and limits; the order cache has a connection of its own.
    pub redis: Redis,
    /// Where the relay sends events.
    pub sink: Arc<dyn EventSink>,
    /// Counts the requests of customers and addresses.
    pub rate_limiter: Arc<RateLimiter>,
    /// Tokens and sessions.
    pub auth: Auth,
    /// Who is let in, tenant by tenant.
    pub tenants: Tenants,
    /// The order cache, its breaker, and the writer that groups commits.
    pub orders: Orders,
    /// The event feed.
    pub feed: Feed,
    /// Notifies this process's relay of a commit.
    pub wake: Wake,
    /// Measures health.
    pub health: Arc<HealthMonitor>,
    /// Counts exports, imports and batches.
    pub bulk: BulkLimits,
    /// Ends the responses that wait or go on, and tracks the tasks that feed them.
    pub shutdown: Shutdown,
}

impl AppState {
    /// Shares the parts.
    pub fn new(parts: StateParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for AppState {
    type Target = StateParts;

    fn deref(&self) -> &StateParts {
        &self.0
    }
}
