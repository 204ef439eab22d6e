//! What every handler may use.

use std::{ops::Deref, sync::Arc};

use shared::{
    broker::EventSink,
    domain::clock::Clock,
    platform::{db::DbPool, redis::Redis},
};

use crate::{
    auth::Auth, config::ApiConfig, http::health::Health, limits::Limits, orders::Orders, outbox::Wake,
};

/// Shared by all requests; clones share one state.
#[derive(Clone)]
pub struct AppState(Arc<State>);

/// The parts.
pub struct State {
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
    /// How much one customer or address may ask for.
    pub limits: Limits,
    /// Tokens and sessions.
    pub auth: Auth,
    /// The order cache, its breaker, and the writer that groups commits.
    pub orders: Orders,
    /// Tells this process's relay that something was committed.
    pub wake: Wake,
    /// What the health routes report.
    pub health: Health,
}

impl AppState {
    /// Puts the parts together.
    pub fn new(state: State) -> Self {
        Self(Arc::new(state))
    }
}

impl Deref for AppState {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}
