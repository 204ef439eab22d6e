//! What all pools on the same servers know together.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How long connections are refused after two of them led to one server process.
const REFUSED: Duration = Duration::from_secs(30);
/// Why a server that takes writes is not used.
const REPLACED: &str =
    "the server was replaced by one that was promoted after it: stop it, and make it a standby";
/// What to do about a pooler that shares server processes between connections.
const SHARED: &str = "the address leads to a pooler, such as PgBouncer, in transaction mode, which cannot be used: set its pool_mode \
                      to session, or connect to PostgreSQL itself";

/// How often the other hosts are asked whether one of them was promoted.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A server that can be written to. Each promotion begins a timeline with a higher number, so of two servers of a database
/// cluster that both take writes, the one with the lower number was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) system_identifier: i64,
    pub(super) timeline: i64,
}

impl Primary {
    /// Whether this server was promoted later than the other one.
    fn replaced(self, other: Self) -> bool {
        self.system_identifier == other.system_identifier && self.timeline > other.timeline
    }
}

/// Whether the other hosts are asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    NotDue,
    First,
    Again,
}

/// The state that all pools on the same servers share.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// Grows whenever a connection was found broken. All connections that were tested before are then tested again.
    suspicions: AtomicU64,
    /// The index of the host that was connected to last.
    host: AtomicUsize,
    /// The latest primary that was connected to.
    primary: Mutex<Option<Primary>>,
    /// When the other hosts were asked last whether they were promoted.
    looked: Mutex<Option<Instant>>,
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

    /// Registers the primary that a new connection leads to. From now on connections to an earlier one are not used any more.
    /// Fails if a later one is known.
    pub(super) fn register_primary(&self, found: Primary) -> sqlx::Result<()> {
        let mut known = lock(&self.primary);
        if known.is_some_and(|latest| latest.replaced(found)) {
            return Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, REPLACED)));
        }
        if known.is_some_and(|latest| latest != found) {
            tracing::warn!(timeline = found.timeline, "another PostgreSQL server takes the writes now");
        }
        *known = Some(found);
        Ok(())
    }

    /// Compares a primary that is not in use with the latest one. Returns whether it replaced that one; then it is the latest.
    pub(super) fn compare_primary(&self, found: Primary) -> bool {
        let mut known = lock(&self.primary);
        let Some(latest) = *known else { return false };
        if latest.replaced(found) {
            tracing::error!(
                timeline = found.timeline,
                latest = latest.timeline,
                "two PostgreSQL servers take writes: the older one is not used here, and must be stopped"
            );
        }
        let is_later = found.replaced(latest);
        if is_later {
            tracing::warn!(
                timeline = found.timeline,
                "a PostgreSQL server was promoted and takes the writes now"
            );
            *known = Some(found);
        }
        is_later
    }

    /// Whether no later primary is known than the one that a connection leads to.
    pub(super) fn is_latest(&self, primary: Option<Primary>) -> bool {
        primary.is_none() || *lock(&self.primary) == primary
    }

    /// Whether the caller must ask the other hosts now whether they were promoted.
    pub(super) fn begin_look(&self) -> Look {
        let mut looked = lock(&self.looked);
        match *looked {
            Some(at) if at.elapsed() < LOOK_EVERY => Look::NotDue,
            before => {
                *looked = Some(Instant::now());
                if before.is_some() { Look::Again } else { Look::First }
            }
        }
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
