//! Connecting to PostgreSQL.

use std::{
    ops::{Deref, DerefMut},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// How long a request waits for a free connection before it is answered with 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection is kept from its pool, which tests it then and ends it where it has become old.
const KEPT: Duration = Duration::from_secs(10);
/// A connection that nobody used for so long goes back as well.
const UNUSED: Duration = Duration::from_secs(1);

/// A pool that connects when first used, so that a process starts, and says so, while PostgreSQL is down.
pub fn pool(url: &SecretString, max_connections: u32, application: &str) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(url.expose_secret())?
        .application_name(application)
        .disable_statement_logging();
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// A pool, of which some connections are kept at hand while one piece of work follows the other.
///
/// A pool asks each connection that comes back whether it still lives. Where statements follow each other on the same
/// connection, that is a second round trip for each of them, and the next one waits for it.
#[derive(Clone, Debug)]
pub struct Connections {
    pool: PgPool,
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    kept: Vec<Held>,
    /// Who waits for the pool, because nothing was kept.
    waiting: usize,
}

/// A connection taken from [`Connections`]. Dropped, it goes back to its pool.
#[derive(Debug)]
pub struct Held {
    connection: PoolConnection<Postgres>,
    taken: Instant,
    used: Instant,
}

impl Connections {
    /// Keeps at most this many connections, which others who use the pool must be able to do without.
    pub fn new(pool: PgPool, most: usize) -> Self {
        Self { pool, most, state: Arc::default() }
    }

    /// A connection that was kept, or one of the pool's.
    pub async fn take(&self) -> Result<Held, sqlx::Error> {
        let waiting = loop {
            let mut state = self.state();
            let Some(held) = state.kept.pop() else {
                state.waiting += 1;
                break Waiting(self);
            };
            drop(state);
            if steady(held.taken.elapsed(), held.used.elapsed()) {
                return Ok(held);
            }
        };
        let connection = self.pool.acquire().await?;
        drop(waiting);
        let now = Instant::now();
        Ok(Held { connection, taken: now, used: now })
    }

    /// Keeps a connection for the next piece of work, after all its statements have succeeded and its transactions have
    /// ended: one that was dropped would stay open until then. Where somebody waits for the pool, the pool gets it.
    pub fn keep(&self, mut held: Held) {
        let mut state = self.state();
        if state.waiting == 0 && state.kept.len() < self.most {
            held.used = Instant::now();
            state.kept.push(held);
        }
    }

    /// Closes the pool, with what is kept of it.
    pub async fn close(&self) {
        self.state().kept.clear();
        self.pool.close().await;
    }

    /// The pool.
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for the pool, until it is dropped.
struct Waiting<'a>(&'a Connections);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// Whether a connection is kept on, so long after it was taken from its pool and used last.
fn steady(taken: Duration, used: Duration) -> bool {
    taken < KEPT && used < UNUSED
}

impl Held {
    /// Closes it without a word: nobody knows in which state it is, or whether the server would answer.
    pub fn discard(self) {
        drop(self.connection.detach());
    }
}

impl Deref for Held {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_sees_its_connections_every_few_seconds_and_when_they_rest() {
        assert!(steady(Duration::from_secs(9), Duration::from_millis(900)));
        assert!(!steady(Duration::from_secs(10), Duration::ZERO));
        assert!(!steady(Duration::from_secs(2), Duration::from_secs(1)));
    }
}
