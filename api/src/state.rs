//! What every handler may use.

use std::{ops::Deref, sync::Arc};

use shared::clock::Clock;
use sqlx::PgPool;

use crate::{auth::Auth, config::ApiConfig, health::Health, orders::Orders, outbox::Wake};

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
    pub db: PgPool,
    /// PostgreSQL for list and history.
    pub read_db: PgPool,
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
