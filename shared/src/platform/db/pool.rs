//! A pool of connections that never waits for a silent server without a limit.

use std::{io, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    DbConnection, DbError, PoolSettings, Servers,
    cluster::{Cluster, Look, Primary},
    connection::{IdleConnections, OpenConnection},
    servers::Wanted,
};

/// Between the first and the second round over the servers; doubled each time.
const PAUSE: Duration = Duration::from_millis(50);

/// How long another host has to report whether it was promoted.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// The server process, unlike any other of the cluster; whether it can write; and, unless it is a standby, the database
/// cluster and its timeline.
const IDENTIFY: &str = "SELECT pid || '@' || extract(epoch FROM backend_start) AS backend, \
                        current_setting('transaction_read_only') AS read_only, \
                        CASE WHEN NOT pg_is_in_recovery() THEN \
                            (SELECT system_identifier::text FROM pg_control_system()) END AS cluster, \
                        CASE WHEN NOT pg_is_in_recovery() THEN \
                            left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline \
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
            loop {
                let open = match idle.take_healthy(servers.wanted).await {
                    Some(open) => open,
                    None => self.connect(deadline).await?,
                };
                self.look_for_promotion().await;
                if idle.cluster.is_latest(open.primary) {
                    return Ok(DbConnection::new(open, permit, Arc::clone(idle)));
                }
            }
        });
        acquired.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(DbError::Unavailable)
    }

    /// Closes the idle connections and refuses further callers.
    pub fn close(&self) {
        self.0.idle.close();
    }

    /// How long a statement usually runs on the server.
    pub(super) fn statement_limit(&self) -> Duration {
        self.0.settings.statement_limit
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
            let mut failures = Vec::new();
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
                        Ok(Err(failure)) => failures.push((at, failure)),
                        Err(_) => failures.push((at, io::Error::from(io::ErrorKind::TimedOut).into())),
                    }
                }
            }
            let is_temporary = failures.iter().any(|(_, failure)| is_temporary(failure));
            if !is_temporary || Instant::now() + pause >= deadline {
                return Err(self.describe(failures));
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// The error of the only host, or those of all of them.
    fn describe(&self, mut failures: Vec<(usize, sqlx::Error)>) -> sqlx::Error {
        if failures.len() == 1
            && let Some((_, failure)) = failures.pop()
        {
            return failure;
        }
        let hosts = &self.0.servers.hosts;
        let failures = failures
            .iter()
            .map(|(at, failure)| format!("{}:{}: {failure}", hosts[*at].get_host(), hosts[*at].get_port()));
        io::Error::other(failures.collect::<Vec<_>>().join("; ")).into()
    }

    async fn open(&self, host: usize, wanted: Wanted) -> sqlx::Result<OpenConnection> {
        let Shared { settings, idle, .. } = &*self.0;
        let suspicions = idle.cluster.suspicions();
        let (mut connection, backend, primary) = self.identify(host).await?;
        match wanted {
            Wanted::Writable if primary.is_none() => return Err(wrong_role("the server is read-only")),
            Wanted::ReadOnly if primary.is_some() => return Err(wrong_role("the server is not read-only")),
            _ => {}
        }
        let primary = primary.filter(|_| wanted == Wanted::Writable);
        if let Some(primary) = primary {
            idle.cluster.register_primary(primary)?;
        }
        let backend = idle.cluster.register_backend(backend)?;
        sqlx::raw_sql(AssertSqlSafe(settings.to_sql())).execute(&mut connection).await?;
        Ok(OpenConnection::new(connection, backend, primary, suspicions))
    }

    /// Connects to a host. Returns its server process, and the primary if it can be written to.
    async fn identify(&self, host: usize) -> sqlx::Result<(PgConnection, String, Option<Primary>)> {
        let mut connection = PgConnection::connect_with(&self.0.servers.hosts[host]).await?;
        let row = sqlx::raw_sql(IDENTIFY).fetch_one(&mut connection).await?;
        let is_read_only = row.try_get::<String, _>("read_only")? == "on";
        let identity: (Option<String>, Option<String>) = (row.try_get("cluster")?, row.try_get("timeline")?);
        let primary = match identity {
            (Some(cluster), Some(timeline)) if !is_read_only => Some(Primary {
                system_identifier: cluster.parse().map_err(|_| unreadable("system_identifier"))?,
                timeline: i64::from_str_radix(&timeline, 16).map_err(|_| unreadable("timeline"))?,
            }),
            _ => None,
        };
        Ok((connection, row.try_get("backend")?, primary))
    }

    /// Every few seconds, asks the other hosts whether one was promoted although the server in use still takes writes, as after a
    /// network was split. The first time this is waited for, so that a program does not begin on a server that was replaced.
    async fn look_for_promotion(&self) {
        let Servers { hosts, wanted } = &self.0.servers;
        let cluster = &self.0.idle.cluster;
        if hosts.len() == 1 || *wanted != Wanted::Writable {
            return;
        }
        let look = cluster.begin_look();
        if look == Look::NotDue {
            return;
        }
        let used = cluster.last_host();
        let others: Vec<_> =
            (0..hosts.len()).filter(|at| *at != used).map(|at| self.clone().look_at(at)).collect();
        let asked = futures_util::future::join_all(others);
        if look == Look::First {
            asked.await;
        } else {
            tokio::spawn(asked);
        }
    }

    /// Notes whether a host is a primary, and a later one than the server in use.
    async fn look_at(self, host: usize) {
        let cluster = &self.0.idle.cluster;
        let look = async {
            let (connection, _, primary) = self.identify(host).await?;
            if primary.is_some_and(|primary| cluster.compare_primary(primary)) {
                cluster.set_last_host(host);
            }
            connection.close().await
        };
        // A host that does not answer is normal while it is away.
        if let Ok(Err(error)) = timeout(LOOK_LIMIT, look).await {
            tracing::debug!(error = %error, "a host of DATABASE_URL cannot take over");
        }
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

fn unreadable(column: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("PostgreSQL reports a {column} that is no number"))
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
