//! How a pool's connections are opened and bounded.

use std::time::Duration;

/// How long a caller waits for a connection.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(3);
/// How long a piece of work may take on the server. Shorter than a request, so that the client still gets its answer.
const STATEMENT_LIMIT: Duration = Duration::from_secs(4);
/// How long a statement waits for a lock.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// How long a transaction may be idle before the server ends it: its client was stopped or has disappeared.
const IDLE_IN_TRANSACTION_LIMIT: Duration = Duration::from_secs(10);
/// How soon the server ends a statement whose client is gone: a request that was given up frees its connection here at once, and its
/// statement would otherwise run on beside those of the next ones.
const CLIENT_CHECK: Duration = Duration::from_millis(500);
/// How much longer the client waits than the server works, so that the server's own error usually comes first.
pub(super) const MARGIN: Duration = Duration::from_millis(500);

/// How a pool's connections are opened and bounded.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    pub(super) application: &'static str,
    pub(super) max_connections: u32,
    pub(super) acquire_limit: Duration,
    pub(super) statement_limit: Duration,
    lock_limit: Duration,
    session: &'static str,
}

impl PoolSettings {
    /// At most this many connections, which `pg_stat_activity` shows under this name.
    pub const fn new(application: &'static str, max_connections: u32) -> Self {
        Self {
            application,
            max_connections,
            acquire_limit: ACQUIRE_LIMIT,
            statement_limit: STATEMENT_LIMIT,
            lock_limit: LOCK_LIMIT,
            session: "",
        }
    }

    /// Limits how long a statement runs and waits for locks on the server. The client waits half a second longer.
    #[must_use]
    pub const fn with_limits(mut self, statement: Duration, lock: Duration) -> Self {
        self.statement_limit = statement;
        self.lock_limit = lock;
        self
    }

    /// Further `SET` commands for each connection.
    #[must_use]
    pub const fn with_session(mut self, session: &'static str) -> Self {
        self.session = session;
        self
    }

    /// How long the client waits for a piece of work.
    pub(super) fn client_limit(&self) -> Duration {
        self.statement_limit + MARGIN
    }

    /// The settings as SQL. They are set after connecting and not as start-up parameters, which PgBouncer would refuse.
    pub(super) fn to_sql(&self) -> String {
        let idle = IDLE_IN_TRANSACTION_LIMIT.max(self.statement_limit);
        format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET client_connection_check_interval = {}; {}",
            self.statement_limit.as_millis(),
            self.lock_limit.as_millis(),
            idle.as_millis(),
            CLIENT_CHECK.as_millis(),
            self.session
        )
    }
}
