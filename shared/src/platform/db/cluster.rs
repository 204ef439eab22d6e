//! What all pools on the same servers know together.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How long connections are refused after two of them led to one server process.
const REFUSED: Duration = Duration::from_secs(30);
/// What to do about a pooler that shares server processes between connections.
const SHARED: &str = "the address leads to a pooler, such as PgBouncer, in transaction mode, which cannot be used: set its pool_mode \
                      to session, or connect to PostgreSQL itself";

/// The state that all pools on the same servers share.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// Grows whenever a connection was found broken. All connections that were tested before are then tested again.
    suspicions: AtomicU64,
    /// The index of the host that was connected to last.
    host: AtomicUsize,
    /// The server processes behind open connections.
    backends: Mutex<HashSet<String>>,
    /// Until when no connection is handed out, because two of them led to one server process.
    refused_until: Mutex<Option<Instant>>,
}

/// The server process of a connection, registered as long as the connection is open.
#[derive(Debug)]
pub(super) struct Backend(String, Arc<Cluster>);

impl Drop for Backend {
    fn drop(&mut self) {
        lock(&self.1.backends).remove(&self.0);
    }
}

impl Cluster {
    /// How often a connection was found broken so far.
    pub(super) fn suspicions(&self) -> u64 {
        self.suspicions.load(Ordering::Acquire)
    }

    /// Has every open connection tested before its next use.
    pub(super) fn suspect_connections(&self) {
        self.suspicions.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn last_host(&self) -> usize {
        self.host.load(Ordering::Relaxed)
    }

    pub(super) fn set_last_host(&self, host: usize) {
        self.host.store(host, Ordering::Relaxed);
    }

    /// Registers the server process of a new connection. Fails if another open connection has the same one: the two share it
    /// by turns, and the second one would find the prepared statements and the settings of the first.
    pub(super) fn register_backend(self: &Arc<Self>, backend: String) -> sqlx::Result<Backend> {
        if lock(&self.backends).insert(backend.clone()) {
            return Ok(Backend(backend, Arc::clone(self)));
        }
        tracing::error!("{SHARED}");
        *lock(&self.refused_until) = Some(Instant::now() + REFUSED);
        Err(sqlx::Error::Configuration(SHARED.into()))
    }

    /// Fails for a while after two connections led to one server process.
    pub(super) fn check_not_shared(&self) -> sqlx::Result<()> {
        if lock(&self.refused_until).is_some_and(|until| Instant::now() < until) {
            return Err(sqlx::Error::Configuration(SHARED.into()));
        }
        Ok(())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
