//! A pool of connections that never waits for a silent server without a limit.

use std::{
    collections::HashSet,
    io,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::{DbError, Servers, WriteError, servers::Wanted};

/// How long anybody waits for a connection.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(3);
/// How long a piece of work may take on the server. Shorter than a request, so that its end is still told to the client.
const STATEMENT_LIMIT: Duration = Duration::from_secs(4);
/// How long a statement waits for a lock.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// How long a transaction may rest before the server ends it: its client was stopped, or is gone without a word.
const IDLE_IN_TRANSACTION_LIMIT: Duration = Duration::from_secs(10);
/// How much longer the client waits than the server works, so that the server's own answer usually comes first.
const MARGIN: Duration = Duration::from_millis(500);
/// A test of a connection that takes longer has failed.
const TEST_LIMIT: Duration = Duration::from_secs(1);
/// A connection that nobody used for so long is tested before it is used again.
const RESTED: Duration = Duration::from_secs(1);
/// So is one whose last test is so long ago, however busy it is: it may lead to a server that is read-only by now.
const TESTED: Duration = Duration::from_secs(10);
/// A connection that nobody used for so long is closed.
const UNUSED: Duration = Duration::from_mins(10);
/// A connection that is so old is closed: the memory of its server process grows with what it has done.
const OLD: Duration = Duration::from_mins(30);
/// How often a piece of work is tried again on another connection.
const ATTEMPTS: u32 = 4;
/// After so long nothing is read again: whoever waits for it has been answered.
const READ_LIMIT: Duration = Duration::from_secs(6);
/// Between the first and the second attempt of a write; doubled each time.
const PAUSE: Duration = Duration::from_millis(50);

/// How long nothing is tried after that.
const REFUSED: Duration = Duration::from_secs(30);
/// What to do about a pooler that shares server processes between connections.
const SHARED: &str = "the address leads to a pooler, such as PgBouncer, in transaction mode, which cannot be used: set its pool_mode \
                      to session, or connect to PostgreSQL itself";

/// Which server process this is, unlike any other of the cluster, and whether it can write.
const IDENTIFY: &str = "SELECT pid || '@' || extract(epoch FROM backend_start) AS backend, \
                        current_setting('transaction_read_only') AS read_only \
                        FROM pg_stat_get_activity(pg_backend_pid())";

/// How a pool's connections are opened and bounded.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    application: &'static str,
    max_connections: u32,
    acquire_limit: Duration,
    statement_limit: Duration,
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

    /// Bounds statements, on the server, and waiting for locks. The client waits half a second longer.
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

    /// Set after connecting and not by start-up parameters, which PgBouncer would refuse.
    fn to_sql(&self) -> String {
        let idle = IDLE_IN_TRANSACTION_LIMIT.max(self.statement_limit);
        format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; {}",
            self.statement_limit.as_millis(),
            self.lock_limit.as_millis(),
            idle.as_millis(),
            self.session
        )
    }
}

/// Connections to the servers of one URL. Clones share them.
#[derive(Clone, Debug)]
pub struct DbPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    servers: Servers,
    settings: PoolSettings,
    permits: Arc<Semaphore>,
    /// The one used last is at the end, and is used next: a server process that is kept busy is quicker.
    idle: Mutex<Vec<Live>>,
    family: Arc<Family>,
}

/// What the pools on the same servers know together.
#[derive(Debug, Default)]
struct Family {
    /// Grows whenever a connection was found broken. All that were tested before are then tested again.
    doubts: AtomicU64,
    /// Which of the hosts was right last.
    host: AtomicUsize,
    /// The server processes behind open connections.
    backends: Mutex<HashSet<String>>,
    /// Until when no connection is handed out, because two of them led to one server process.
    refused_until: Mutex<Option<Instant>>,
}

/// An open connection.
#[derive(Debug)]
struct Live {
    connection: PgConnection,
    _backend: Backend,
    opened: Instant,
    tested: Instant,
    used: Instant,
    doubts: u64,
}

/// The server process of a connection, registered as long as the connection is open.
#[derive(Debug)]
struct Backend(String, Arc<Family>);

impl Drop for Backend {
    fn drop(&mut self) {
        lock(&self.1.backends).remove(&self.0);
    }
}

impl DbPool {
    /// A pool that connects when first used.
    pub fn new(servers: Servers, settings: PoolSettings) -> Self {
        Self::in_family(servers, settings, Arc::default())
    }

    /// Another pool on the same servers. What one of the two learns of a broken connection makes the other test its own.
    #[must_use]
    pub fn sibling(&self, settings: PoolSettings) -> Self {
        Self::in_family(self.0.servers.clone(), settings, Arc::clone(&self.0.family))
    }

    fn in_family(mut servers: Servers, settings: PoolSettings, family: Arc<Family>) -> Self {
        for host in &mut servers.hosts {
            *host = host.clone().application_name(settings.application);
        }
        let permits = usize::try_from(settings.max_connections).unwrap_or(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shared { servers, settings, permits, idle: Mutex::default(), family }))
    }

    /// A connection, which is closed if it is dropped before [`DbConnection::release`].
    pub async fn acquire(&self) -> Result<DbConnection, DbError> {
        let deadline = Instant::now() + self.0.settings.acquire_limit;
        let acquired = timeout_at(deadline, async {
            self.0.family.check_not_shared()?;
            let permits = Arc::clone(&self.0.permits);
            let permit = permits.acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let live = match self.take_idle().await {
                Some(live) => live,
                None => self.connect(deadline).await?,
            };
            let held = Held { live: Some(live), _permit: permit, pool: self.clone(), since: Instant::now() };
            Ok(DbConnection { held: Some(held), home: None })
        });
        acquired.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(DbError::Unavailable)
    }

    /// Closes what rests, and refuses whoever asks for a connection from now on.
    pub fn close(&self) {
        self.0.permits.close();
        lock(&self.0.idle).clear();
    }

    /// Does a piece of work once.
    pub async fn run<T, F>(&self, work: impl FnOnce(DbConnection) -> F) -> Result<T, DbError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let connection = self.acquire().await?;
        connection.run(self.0.settings.statement_limit + MARGIN, work).await
    }

    /// Does a piece of work that may be large: if the usual limit proves too short, once more with this one. So a silent connection
    /// is noticed soon, and large work is done all the same.
    pub async fn run_patiently<T, F>(
        &self,
        limit: Duration,
        mut work: impl FnMut(DbConnection) -> F,
    ) -> Result<T, DbError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        match self.run(&mut work).await {
            Err(error) if error.is_statement_timeout() => {}
            done => return done,
        }
        let mut connection = self.acquire().await?;
        let set = sqlx::raw_sql(AssertSqlSafe(format!("SET statement_timeout = {}", limit.as_millis())));
        within(TEST_LIMIT, set.execute(&mut *connection)).await?;
        // Its limit is not that of the others, so it does not go back.
        within(limit + MARGIN, work(connection)).await
    }

    /// Reads, on another connection if the first one was broken, and again if PostgreSQL chose it as the victim of a conflict.
    pub async fn read<T, F>(&self, mut work: impl FnMut(DbConnection) -> F) -> Result<T, DbError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let begun = Instant::now();
        for _ in 1..ATTEMPTS {
            match self.run(&mut work).await {
                Err(error)
                    if (error.is_of_connection() || error.is_victim()) && begun.elapsed() < READ_LIMIT =>
                {
                    tracing::debug!(error = %error, "a read is tried again");
                }
                done => return done.map_err(DbError::of_a_read),
            }
        }
        self.run(work).await.map_err(DbError::of_a_read)
    }

    /// Writes, again if the outcome is unknown, because then somebody has to find out. Also says whether an earlier attempt may
    /// have done the work: the write must recognise that, for example by its ids.
    pub async fn write<T, F>(
        &self,
        mut in_doubt: bool,
        mut work: impl FnMut(DbConnection) -> F,
    ) -> Result<(T, bool), WriteError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let error = match self.run(&mut work).await {
                Ok(done) => return Ok((done, in_doubt)),
                Err(error) => error,
            };
            in_doubt |= matches!(error, DbError::Lost(_));
            let again = match error {
                DbError::Refused(_) => false,
                // The attempt before may still run on the server and hold the locks.
                _ => in_doubt || error.is_of_connection() || error.is_victim(),
            };
            if !again || attempt == ATTEMPTS {
                let is_unknown = in_doubt && !matches!(error, DbError::Refused(_));
                let error = match error {
                    DbError::Unavailable(error) | DbError::Busy(error) if is_unknown => DbError::Lost(error),
                    error => error,
                };
                return Err(WriteError { error, in_doubt });
            }
            tracing::warn!(error = %error, attempt, in_doubt, "a write failed; it is done again");
            tokio::time::sleep(pause).await;
            (pause, attempt) = (pause * 2, attempt + 1);
        }
    }

    /// A connection that rests and is fit for use.
    async fn take_idle(&self) -> Option<Live> {
        loop {
            let mut live = lock(&self.0.idle).pop()?;
            let doubts = self.0.family.doubts.load(Ordering::Acquire);
            if live.opened.elapsed() > OLD {
                continue;
            }
            let is_due = live.used.elapsed() > RESTED || live.tested.elapsed() > TESTED;
            if !is_due && live.doubts == doubts {
                return Some(live);
            }
            // Also if nobody waits any more for the end of the test.
            let suspicion = Suspicion(Some(self));
            if live.is_fit(self.0.servers.wanted).await {
                suspicion.dispel();
                live.tested = Instant::now();
                live.doubts = doubts;
                return Some(live);
            }
        }
    }

    /// Opens a connection to the first server that is as it is wanted. Servers that are starting, or about to be promoted, are
    /// asked again until the deadline.
    async fn connect(&self, deadline: Instant) -> sqlx::Result<Live> {
        let Servers { hosts, wanted } = &self.0.servers;
        let mut pause = PAUSE;
        loop {
            let mut error = sqlx::Error::PoolTimedOut;
            let rounds: &[Wanted] = match wanted {
                Wanted::RatherReadOnly => &[Wanted::ReadOnly, Wanted::Any],
                wanted => std::slice::from_ref(wanted),
            };
            let first = self.0.family.host.load(Ordering::Relaxed);
            let mut left = u32::try_from(rounds.len() * hosts.len()).unwrap_or(u32::MAX);
            for wanted in rounds {
                for at in (0..hosts.len()).map(|at| (first + at) % hosts.len()) {
                    // One that does not answer leaves time for the others.
                    let limit = deadline.saturating_duration_since(Instant::now()) / left;
                    left -= 1;
                    match timeout(limit, self.open(at, *wanted)).await {
                        Ok(Ok(live)) => {
                            self.0.family.host.store(at, Ordering::Relaxed);
                            return Ok(live);
                        }
                        Ok(Err(failure)) => error = failure,
                        Err(_) => error = io::Error::from(io::ErrorKind::TimedOut).into(),
                    }
                }
            }
            if !may_pass(&error) || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn open(&self, at: usize, wanted: Wanted) -> sqlx::Result<Live> {
        let doubts = self.0.family.doubts.load(Ordering::Acquire);
        let mut connection = PgConnection::connect_with(&self.0.servers.hosts[at]).await?;
        let identity = sqlx::raw_sql(IDENTIFY).fetch_one(&mut connection).await?;
        let is_read_only = identity.try_get::<String, _>("read_only")? == "on";
        match wanted {
            Wanted::Writable if is_read_only => return Err(not_wanted("the server is read-only")),
            Wanted::ReadOnly if !is_read_only => return Err(not_wanted("the server is not read-only")),
            _ => {}
        }
        let backend = self.0.family.register(identity.try_get("backend")?)?;
        sqlx::raw_sql(AssertSqlSafe(self.0.settings.to_sql())).execute(&mut connection).await?;
        let now = Instant::now();
        Ok(Live { connection, _backend: backend, opened: now, tested: now, used: now, doubts })
    }

    /// Connections are broken: those that rest here are closed, and those of the other pools on these servers tested.
    fn suspect_all(&self) {
        self.0.family.doubts.fetch_add(1, Ordering::AcqRel);
        lock(&self.0.idle).clear();
    }
}

/// The servers of a pool of sqlx's own.
impl From<PgPool> for DbPool {
    fn from(pool: PgPool) -> Self {
        let mut settings = PoolSettings::new("orders", pool.options().get_max_connections());
        settings.acquire_limit = settings.acquire_limit.min(pool.options().get_acquire_timeout());
        Self::new(Servers::of(&pool.connect_options()), settings)
    }
}

impl Family {
    /// Two open connections that lead to the same server process share it by turns. The second one would find the prepared
    /// statements and the settings of the first.
    fn register(self: &Arc<Self>, backend: String) -> sqlx::Result<Backend> {
        if lock(&self.backends).insert(backend.clone()) {
            return Ok(Backend(backend, Arc::clone(self)));
        }
        tracing::error!("{SHARED}");
        *lock(&self.refused_until) = Some(Instant::now() + REFUSED);
        Err(sqlx::Error::Configuration(SHARED.into()))
    }

    fn check_not_shared(&self) -> sqlx::Result<()> {
        if lock(&self.refused_until).is_some_and(|until| Instant::now() < until) {
            return Err(sqlx::Error::Configuration(SHARED.into()));
        }
        Ok(())
    }
}

impl Live {
    /// Whether the server answers, and is still what it must be.
    async fn is_fit(&mut self, wanted: Wanted) -> bool {
        let test = async {
            if wanted != Wanted::Writable {
                return self.connection.ping().await.map(|()| true);
            }
            let row = sqlx::raw_sql("SHOW transaction_read_only").fetch_one(&mut self.connection).await?;
            Ok(row.try_get::<String, _>(0)? == "off")
        };
        matches!(timeout(TEST_LIMIT, test).await, Ok(Ok(true)))
    }
}

/// While a connection is tested: if that ends in any other way than well, all connections are suspected.
struct Suspicion<'a>(Option<&'a DbPool>);

impl Suspicion<'_> {
    fn dispel(mut self) {
        self.0 = None;
    }
}

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.0 {
            pool.suspect_all();
        }
    }
}

/// A connection of a [`DbPool`]. Dropped, it is closed, because nobody knows in which state it is. A piece of work that the
/// pool runs has it lent: then the pool decides.
///
/// Lent by value, because the compiler cannot tell yet that work on a borrowed connection may move between threads.
#[derive(Debug)]
pub struct DbConnection {
    held: Option<Held>,
    home: Option<Home>,
}

type Home = Arc<Mutex<Option<Held>>>;

/// A connection with its place in the pool.
#[derive(Debug)]
struct Held {
    live: Option<Live>,
    /// Given back after the connection, so that there are never more than there may be.
    _permit: OwnedSemaphorePermit,
    pool: DbPool,
    since: Instant,
}

impl Held {
    fn release(mut self) {
        let Some(mut live) = self.live.take() else { return };
        let mut idle = lock(&self.pool.0.idle);
        if self.pool.0.permits.is_closed() {
            return;
        }
        live.used = Instant::now();
        idle.push(live);
        if idle.first().is_some_and(|longest| longest.used.elapsed() > UNUSED) {
            idle.remove(0);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // One that was given up after a while may have been silent, and so may be the others.
        if self.live.take().is_some() && self.since.elapsed() > TEST_LIMIT / 2 {
            self.pool.0.family.doubts.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl DbConnection {
    /// Gives it back to its pool, after all its statements have succeeded and its transactions have ended.
    pub fn release(mut self) {
        if let Some(held) = self.held.take() {
            held.release();
        }
    }

    /// Does a piece of work within a limit, and gives the connection back if it can be used again.
    async fn run<T, F>(mut self, limit: Duration, work: impl FnOnce(Self) -> F) -> Result<T, DbError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let home: Home = Arc::default();
        let lent = Self { held: self.held.take(), home: Some(Arc::clone(&home)) };
        let done = within(limit, work(lent)).await;
        let Some(held) = lock(&home).take() else { return done };
        let is_usable = match &done {
            Ok(_) => true,
            // A transaction that was given up is rolled back by the server when the connection ends.
            Err(DbError::Busy(_) | DbError::Refused(_)) => held.live.as_ref().is_some_and(Live::is_at_rest),
            Err(_) => false,
        };
        if is_usable {
            held.release();
        } else {
            if done.as_ref().is_err_and(DbError::is_of_connection) {
                held.pool.suspect_all();
            }
            drop(held);
        }
        done
    }
}

impl Live {
    /// Whether no transaction is open, and no rollback waits to be sent.
    fn is_at_rest(&self) -> bool {
        !self.connection.is_in_transaction() && !self.connection.should_flush()
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
const HERE: &str = "it is here until it is dropped";

impl Deref for DbConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.held.as_ref().and_then(|held| held.live.as_ref()).expect(HERE).connection
    }
}

impl DerefMut for DbConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.held.as_mut().and_then(|held| held.live.as_mut()).expect(HERE).connection
    }
}

/// Bounds a statement on the client.
pub async fn within<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> Result<T, DbError> {
    timeout(limit, work).await.map_err(|_| DbError::silent())?.map_err(DbError::from)
}

fn not_wanted(why: &str) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, why.to_owned()))
}

/// Whether connecting may succeed in a moment.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ReadOnlyFilesystem)
        }
        // It starts or stops, or has no connection left.
        sqlx::Error::Database(answer) => {
            answer.code().is_some_and(|code| code.starts_with("57P") || code == "53300")
        }
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
