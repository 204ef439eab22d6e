//! A pool of connections that never waits for a silent server without a limit.

use std::{io, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    DbConnection, DbError, PoolSettings, Servers,
    cluster::Cluster,
    connection::{IdleConnections, OpenConnection},
    servers::Wanted,
};

/// Between the first and the second round over the servers; doubled each time.
const PAUSE: Duration = Duration::from_millis(50);

/// The server process, unlike any other of the cluster, and whether it can write.
const IDENTIFY: &str = "SELECT pid || '@' || extract(epoch FROM backend_start) AS backend, \
                        current_setting('transaction_read_only') AS read_only \
                        FROM pg_stat_get_activity(pg_backend_pid())";

/// Connections to the servers of one URL. Clones share them.
#[derive(Clone, Debug)]
pub struct DbPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    servers: Servers,
    settings: PoolSettings,
    idle: Arc<IdleConnections>,
}

impl DbPool {
    /// A pool that connects when first used.
    pub fn new(servers: Servers, settings: PoolSettings) -> Self {
        Self::in_cluster(servers, settings, Arc::default())
    }

    /// Another pool on the same servers. If one of the two finds a broken connection, the other tests its own.
    #[must_use]
    pub fn sibling(&self, settings: PoolSettings) -> Self {
        Self::in_cluster(self.0.servers.clone(), settings, Arc::clone(&self.0.idle.cluster))
    }

    fn in_cluster(mut servers: Servers, settings: PoolSettings, cluster: Arc<Cluster>) -> Self {
        for host in &mut servers.hosts {
            *host = host.clone().application_name(settings.application);
        }
        let idle = Arc::new(IdleConnections::new(settings.max_connections, cluster));
        Self(Arc::new(Shared { servers, settings, idle }))
    }

    /// A connection, which is closed if it is dropped before [`DbConnection::release`].
    pub async fn acquire(&self) -> Result<DbConnection, DbError> {
        let Shared { servers, settings, idle } = &*self.0;
        let deadline = Instant::now() + settings.acquire_limit;
        let acquired = timeout_at(deadline, async {
            idle.cluster.check_not_shared()?;
            let permits = Arc::clone(&idle.permits);
            let permit = permits.acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let open = match idle.take_healthy(servers.wanted).await {
                Some(open) => open,
                None => self.connect(deadline).await?,
            };
            Ok(DbConnection::new(open, permit, Arc::clone(idle)))
        });
        acquired.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(DbError::Unavailable)
    }

    /// Closes the idle connections and refuses further callers.
    pub fn close(&self) {
        self.0.idle.close();
    }

    /// How long the client waits for a piece of work.
    pub(super) fn client_limit(&self) -> Duration {
        self.0.settings.client_limit()
    }

    /// Opens a connection to the first server with the wanted role. Servers that are starting, or about to be promoted, are
    /// asked again until the deadline.
    async fn connect(&self, deadline: Instant) -> sqlx::Result<OpenConnection> {
        let Servers { hosts, wanted } = &self.0.servers;
        let cluster = &self.0.idle.cluster;
        let mut pause = PAUSE;
        loop {
            let mut error = sqlx::Error::PoolTimedOut;
            let rounds: &[Wanted] = match wanted {
                Wanted::PreferReadOnly => &[Wanted::ReadOnly, Wanted::Any],
                wanted => std::slice::from_ref(wanted),
            };
            let first = cluster.last_host();
            let mut left = u32::try_from(rounds.len() * hosts.len()).unwrap_or(u32::MAX);
            for wanted in rounds {
                for at in (0..hosts.len()).map(|at| (first + at) % hosts.len()) {
                    // A server that does not answer leaves time for the others.
                    let limit = deadline.saturating_duration_since(Instant::now()) / left;
                    left -= 1;
                    match timeout(limit, self.open(at, *wanted)).await {
                        Ok(Ok(open)) => {
                            cluster.set_last_host(at);
                            return Ok(open);
                        }
                        Ok(Err(failure)) => error = failure,
                        Err(_) => error = io::Error::from(io::ErrorKind::TimedOut).into(),
                    }
                }
            }
            if !is_temporary(&error) || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn open(&self, host: usize, wanted: Wanted) -> sqlx::Result<OpenConnection> {
        let Shared { servers, settings, idle } = &*self.0;
        let suspicions = idle.cluster.suspicions();
        let mut connection = PgConnection::connect_with(&servers.hosts[host]).await?;
        let identity = sqlx::raw_sql(IDENTIFY).fetch_one(&mut connection).await?;
        let is_read_only = identity.try_get::<String, _>("read_only")? == "on";
        match wanted {
            Wanted::Writable if is_read_only => return Err(wrong_role("the server is read-only")),
            Wanted::ReadOnly if !is_read_only => return Err(wrong_role("the server is not read-only")),
            _ => {}
        }
        let backend = idle.cluster.register_backend(identity.try_get("backend")?)?;
        sqlx::raw_sql(AssertSqlSafe(settings.to_sql())).execute(&mut connection).await?;
        Ok(OpenConnection::new(connection, backend, suspicions))
    }
}

/// For tests: a pool on the server of one of sqlx's own pools.
impl From<PgPool> for DbPool {
    fn from(pool: PgPool) -> Self {
        let mut settings = PoolSettings::new("orders", pool.options().get_max_connections());
        settings.acquire_limit = settings.acquire_limit.min(pool.options().get_acquire_timeout());
        Self::new(Servers::of(&pool.connect_options()), settings)
    }
}

fn wrong_role(why: &str) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, why.to_owned()))
}

/// Whether connecting may succeed in a moment.
fn is_temporary(error: &sqlx::Error) -> bool {
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
