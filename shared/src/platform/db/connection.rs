//! An open connection, how it is lent to a piece of work, and when it goes back to the idle ones.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    DbError,
    cluster::{Backend, Cluster, Primary, lock},
    servers::Wanted,
};

/// A test of a connection that takes longer has failed.
pub(super) const TEST_LIMIT: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is tested before it is used again.
const IDLE_BEFORE_TEST: Duration = Duration::from_secs(1);
/// A connection whose last test is longer ago is tested even if it is busy: its server may have become read-only.
const TEST_EVERY: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is closed.
const MAX_IDLE: Duration = Duration::from_mins(10);
/// An older connection is closed: the memory of its server process grows with what it has done.
const MAX_AGE: Duration = Duration::from_mins(30);

/// An open connection.
#[derive(Debug)]
pub(super) struct OpenConnection {
    connection: PgConnection,
    _backend: Backend,
    /// The server, if this pool wants one that can be written to.
    pub(super) primary: Option<Primary>,
    opened: Instant,
    tested: Instant,
    used: Instant,
    /// The number of suspicions when it was last tested.
    suspicions: u64,
}

impl OpenConnection {
    pub(super) fn new(
        connection: PgConnection,
        backend: Backend,
        primary: Option<Primary>,
        suspicions: u64,
    ) -> Self {
        let now = Instant::now();
        Self { connection, _backend: backend, primary, opened: now, tested: now, used: now, suspicions }
    }

    /// Whether the server answers and still has the wanted role.
    async fn is_healthy(&mut self, wanted: Wanted) -> bool {
        let test = async {
            if wanted != Wanted::Writable {
                return self.connection.ping().await.map(|()| true);
            }
            let row = sqlx::raw_sql("SHOW transaction_read_only").fetch_one(&mut self.connection).await?;
            Ok(row.try_get::<String, _>(0)? == "off")
        };
        matches!(timeout(TEST_LIMIT, test).await, Ok(Ok(true)))
    }

    /// Whether no transaction is open and no rollback waits to be sent.
    fn has_no_transaction(&self) -> bool {
        !self.connection.is_in_transaction() && !self.connection.should_flush()
    }
}

/// The idle connections of a pool, and its permits for open ones.
#[derive(Debug)]
pub(super) struct IdleConnections {
    /// The connection that was used last is at the end and is used next: a server process that is kept busy is faster.
    list: Mutex<Vec<OpenConnection>>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) cluster: Arc<Cluster>,
}

impl IdleConnections {
    pub(super) fn new(max_connections: u32, cluster: Arc<Cluster>) -> Self {
        let permits = usize::try_from(max_connections).unwrap_or(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { list: Mutex::default(), permits, cluster }
    }

    /// An idle connection that is healthy, if there is one.
    pub(super) async fn take_healthy(&self, wanted: Wanted) -> Option<OpenConnection> {
        loop {
            let mut open = lock(&self.list).pop()?;
            let suspicions = self.cluster.suspicions();
            if open.opened.elapsed() > MAX_AGE || !self.cluster.is_latest(open.primary) {
                continue;
            }
            let is_due = open.used.elapsed() > IDLE_BEFORE_TEST || open.tested.elapsed() > TEST_EVERY;
            if !is_due && open.suspicions == suspicions {
                return Some(open);
            }
            // Also suspects the connections if the caller stops waiting for the end of the test.
            let suspicion = Suspicion(Some(self));
            if open.is_healthy(wanted).await {
                suspicion.dispel();
                open.tested = Instant::now();
                open.suspicions = suspicions;
                return Some(open);
            }
        }
    }

    /// A connection is broken: closes the idle ones here, and has those of the other pools on these servers tested.
    pub(super) fn suspect_all(&self) {
        self.cluster.suspect_connections();
        lock(&self.list).clear();
    }

    /// Closes the idle connections and refuses further ones.
    pub(super) fn close(&self) {
        self.permits.close();
        lock(&self.list).clear();
    }

    fn put_back(&self, mut open: OpenConnection) {
        let mut list = lock(&self.list);
        if self.permits.is_closed() {
            return;
        }
        open.used = Instant::now();
        list.push(open);
        if list.first().is_some_and(|longest| longest.used.elapsed() > MAX_IDLE) {
            list.remove(0);
        }
    }
}

/// While a connection is tested: if the test does not succeed, all connections are suspected.
struct Suspicion<'a>(Option<&'a IdleConnections>);

impl Suspicion<'_> {
    fn dispel(mut self) {
        self.0 = None;
    }
}

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        if let Some(idle) = self.0 {
            idle.suspect_all();
        }
    }
}

/// A connection of a [`DbPool`](super::DbPool). If it is dropped, it is closed, because its state is unknown. While the pool
/// runs a piece of work on it, the pool decides whether it can be used again.
///
/// Lent by value, because the compiler cannot tell yet that work on a borrowed connection can move between threads.
#[derive(Debug)]
pub struct DbConnection {
    held: Option<HeldConnection>,
    home: Option<Home>,
}

/// Where a lent connection returns to when the work drops it.
type Home = Arc<Mutex<Option<HeldConnection>>>;

/// A connection with its permit.
#[derive(Debug)]
struct HeldConnection {
    open: Option<OpenConnection>,
    /// Released after the connection, so that there are never more connections than allowed.
    _permit: OwnedSemaphorePermit,
    idle: Arc<IdleConnections>,
    since: Instant,
}

impl HeldConnection {
    fn release(mut self) {
        if let Some(open) = self.open.take() {
            self.idle.put_back(open);
        }
    }

    /// Whether its server is still the latest that takes writes, as far as this process knows.
    fn leads_to_latest(&self) -> bool {
        self.open.as_ref().is_none_or(|open| self.idle.cluster.is_latest(open.primary))
    }
}

impl Drop for HeldConnection {
    fn drop(&mut self) {
        // A connection that was given up after a while may have been silent, and so may be the others.
        if self.open.take().is_some() && self.since.elapsed() > TEST_LIMIT / 2 {
            self.idle.cluster.suspect_connections();
        }
    }
}

impl DbConnection {
    pub(super) fn new(
        open: OpenConnection,
        permit: OwnedSemaphorePermit,
        idle: Arc<IdleConnections>,
    ) -> Self {
        let held = HeldConnection { open: Some(open), _permit: permit, idle, since: Instant::now() };
        Self { held: Some(held), home: None }
    }

    /// Returns it to its pool. All its statements must have succeeded and its transactions must have ended.
    pub fn release(mut self) {
        if let Some(held) = self.held.take() {
            held.release();
        }
    }

    /// Does a piece of work within a limit, and returns the connection if it can be used again.
    pub(super) async fn lend<T, F>(
        mut self,
        limit: Duration,
        work: impl FnOnce(Self) -> F,
    ) -> (Result<T, DbError>, Option<Self>)
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let home: Home = Arc::default();
        let lent = Self { held: self.held.take(), home: Some(Arc::clone(&home)) };
        let done = within(limit, work(lent)).await;
        let Some(held) = lock(&home).take() else { return (done, None) };
        // What a server reports that was replaced meanwhile may be out of date, and what it wrote may be lost.
        let done = if held.leads_to_latest() { done } else { done.and_then(|_| Err(DbError::replaced())) };
        let is_usable = match &done {
            Ok(_) => true,
            // The server rolls back an abandoned transaction when the connection ends.
            Err(DbError::Busy(_) | DbError::Refused(_)) => {
                held.open.as_ref().is_some_and(OpenConnection::has_no_transaction)
            }
            Err(_) => false,
        };
        if is_usable {
            return (done, Some(Self { held: Some(held), home: None }));
        }
        if done.as_ref().is_err_and(DbError::is_of_connection) {
            held.idle.suspect_all();
        }
        drop(held);
        (done, None)
    }
}

impl Drop for DbConnection {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            *lock(home) = self.held.take();
        }
    }
}

/// Why a connection that is lent or held has its server.
const PRESENT: &str = "it is present until it is dropped";

impl Deref for DbConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.held.as_ref().and_then(|held| held.open.as_ref()).expect(PRESENT).connection
    }
}

impl DerefMut for DbConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.held.as_mut().and_then(|held| held.open.as_mut()).expect(PRESENT).connection
    }
}

/// Limits how long the client waits for a statement.
pub async fn within<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> Result<T, DbError> {
    timeout(limit, work).await.map_err(|_| DbError::silent())?.map_err(DbError::from)
}
