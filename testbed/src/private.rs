//! A server process for one test alone, for tests that stop, freeze or kill it.

use sqlx::{Connection as _, PgConnection};

use crate::database::{self, Database};
use crate::native::{self, RabbitMq, Server, Storage};

/// A PostgreSQL server of its own, with a migrated database. It is killed with this value.
#[derive(Debug)]
pub struct PrivatePostgres(Server);

/// A Redis server of its own. It is killed with this value.
#[derive(Debug)]
pub struct PrivateRedis(pub(crate) Server);

/// A RabbitMQ server of its own. It is killed with this value.
#[derive(Debug)]
pub struct PrivateRabbitMq(RabbitMq);

/// Starts a PostgreSQL server with a migrated database.
///
/// # Panics
///
/// When it cannot be started.
pub async fn private_postgres() -> PrivatePostgres {
    let started = async {
        let server = native::postgres(&Storage::Throwaway).await?;
        database::migrate(server.url()).await?;
        anyhow::Ok(PrivatePostgres(server))
    };
    started.await.unwrap_or_else(|error| panic!("no PostgreSQL for this test: {error:#}"))
}

/// A PgBouncer of its own, in front of a server. It is killed with this value.
#[derive(Debug)]
pub struct PrivatePgBouncer(Server);

/// Starts a PgBouncer in front of the server and database at `url`, whose pools work in this mode: `session`, `transaction` or
/// `statement`.
///
/// # Panics
///
/// When it cannot be started.
pub async fn private_pgbouncer(url: &str, mode: &str) -> PrivatePgBouncer {
    let server = native::pgbouncer(url, mode).await;
    PrivatePgBouncer(server.unwrap_or_else(|error| panic!("no PgBouncer for this test: {error:#}")))
}

impl PrivatePostgres {
    /// Starts a standby of it: a server that follows it and is read-only until [`Self::promote`].
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub async fn standby(&self) -> Self {
        self.standby_on(None).await
    }

    /// Starts a standby of it in place of a server that was replaced: on its port, with a new copy of the data.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub async fn standby_in_place_of(&self, replaced: Self) -> Self {
        replaced.kill();
        let address = replaced.address();
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let standby = self.standby_on(port).await;
        assert_eq!(standby.address(), address, "the port was taken by another program");
        standby
    }

    async fn standby_on(&self, port: Option<u16>) -> Self {
        let server = native::postgres_standby(self.url(), port).await;
        Self(server.unwrap_or_else(|error| panic!("no standby for this test: {error:#}")))
    }

    /// Has a standby receive nothing any more from its primary. What it has received, it keeps.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn stop_receiving(&self) {
        let mut connection =
            self.execute(&["ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"]).await;
        crate::eventually("the standby receives nothing", async || {
            let receivers = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pg_stat_wal_receiver");
            receivers.fetch_one(&mut connection).await.is_ok_and(|receivers| receivers == 0)
        })
        .await;
    }

    /// Executes statements one by one, and returns the connection.
    async fn execute(&self, statements: &[&'static str]) -> PgConnection {
        let executed = async {
            let mut connection = PgConnection::connect(self.url()).await?;
            for sql in statements {
                sqlx::raw_sql(*sql).execute(&mut connection).await?;
            }
            Ok::<_, sqlx::Error>(connection)
        };
        executed.await.unwrap_or_else(|error| panic!("{statements:?}: {error}"))
    }

    /// Its migrated database. It ends with the server.
    pub fn database(&self) -> Database {
        Database::of_private_server(self.url())
    }

    /// From now on each commit of a new session waits until a standby has applied it; returns once a standby does so. Or, with
    /// `false`, no commit waits. A standby can be told the latter, too, for the time after its promotion.
    ///
    /// # Panics
    ///
    /// When it does not answer, or no standby follows it.
    pub async fn set_synchronous(&self, synchronous: bool) {
        let mut sql = vec!["ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"];
        if synchronous {
            sql[0] = "ALTER SYSTEM SET synchronous_standby_names = '*'";
            // The server is started with another value, over which only this one prevails.
            sql.push("ALTER DATABASE orders SET synchronous_commit = remote_apply");
        }
        let mut connection = self.execute(&sql).await;
        if synchronous {
            let is_followed = async |connection: &mut PgConnection, least: &str| {
                let follows = "SELECT EXISTS (SELECT FROM pg_stat_replication
                               WHERE state = 'streaming' AND sync_state = 'sync' AND replay_lsn >= $1::pg_lsn)";
                sqlx::query_scalar(follows).bind(least).fetch_one(connection).await.unwrap_or(false)
            };
            crate::eventually("a standby follows", async || is_followed(&mut connection, "0/0").await).await;
            // Commits wait from the moment at which the checkpointer has read the settings. What came before must be there, too.
            sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await.expect("a checkpoint");
            let written = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
                .fetch_one(&mut connection)
                .await;
            let written: String = written.expect("a position");
            crate::eventually("the standby has it all", async || {
                is_followed(&mut connection, &written).await
            })
            .await;
        }
    }

    /// Makes a primary of a standby, and waits until it is one.
    ///
    /// # Panics
    ///
    /// When it does not become one.
    pub async fn promote(&self) {
        let promoted = async {
            let mut connection = PgConnection::connect(self.url()).await?;
            sqlx::query("SELECT pg_promote()").execute(&mut connection).await?;
            connection.close().await
        };
        promoted.await.unwrap_or_else(|error| panic!("the standby was not promoted: {error}"));
    }
}

/// Starts a Redis server.
///
/// # Panics
///
/// When it cannot be started.
pub async fn private_redis() -> PrivateRedis {
    let server = native::redis(&Storage::Throwaway).await;
    PrivateRedis(server.unwrap_or_else(|error| panic!("no Redis for this test: {error:#}")))
}

/// Starts a Redis server that has on disk what it has answered, and finds it there when it is started again.
///
/// # Panics
///
/// When it cannot be started.
pub async fn private_durable_redis() -> PrivateRedis {
    let server = native::durable_redis().await;
    PrivateRedis(server.unwrap_or_else(|error| panic!("no Redis for this test: {error:#}")))
}

/// Starts a RabbitMQ server, which takes a dozen seconds and some 150 MB: for what the shared one cannot show.
///
/// # Panics
///
/// When it cannot be started.
pub async fn private_rabbitmq() -> PrivateRabbitMq {
    let server = native::rabbitmq(&Storage::Throwaway).await;
    PrivateRabbitMq(server.unwrap_or_else(|error| panic!("no RabbitMQ for this test: {error:#}")))
}

impl PrivateRedis {
    /// A connection to it.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        crate::connect_redis(self.url()).await.expect("the private Redis answers")
    }

    /// The answer to one command, on a connection of its own.
    ///
    /// # Panics
    ///
    /// When it refuses the command.
    pub async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let (name, arguments) = command.split_first().expect("a command");
        let answer = redis::cmd(name).arg(arguments).query_async(&mut self.connect().await).await;
        answer.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// One field of what `INFO` says.
    ///
    /// # Panics
    ///
    /// When it has no such field.
    pub async fn info(&self, field: &str) -> String {
        self.try_info(field).await.unwrap_or_else(|error| panic!("INFO: {error}"))
    }

    /// [`Self::info`] of a server that may end the connection.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    ///
    /// # Panics
    ///
    /// When it has no such field.
    pub async fn try_info(&self, field: &str) -> anyhow::Result<String> {
        let mut connection = crate::connect_redis(self.url()).await?;
        let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.unwrap_or_else(|| panic!("INFO has no {field}")).trim().to_owned())
    }

    /// Makes it a replica of `primary`, and waits until it has all of its data.
    ///
    /// # Panics
    ///
    /// When it does not become one.
    pub async fn replicate(&self, primary: &Self) {
        let address = primary.address();
        let (host, port) = address.split_once(':').expect("a host and a port");
        self.ask::<()>(&["REPLICAOF", host, port]).await;
        let caught_up = async || self.try_info("master_link_status").await.is_ok_and(|status| status == "up");
        crate::eventually("the replica has caught up", caught_up).await;
    }

    /// Makes it a primary, with the data that it has.
    ///
    /// # Panics
    ///
    /// When it does not become one.
    pub async fn promote(&self) {
        self.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    }
}

/// The same for every server: each test reads as if it held the server itself.
macro_rules! private_server {
    ($name:ident, $server:expr) => {
        impl $name {
            /// The process.
            pub fn server(&self) -> &Server {
                let of: fn(&Self) -> &Server = $server;
                of(self)
            }

            /// What a program under test connects to. It stays the same when the server is started again.
            pub fn url(&self) -> &str {
                self.server().url()
            }

            /// Its host and port, for a [`crate::Proxy`] in front of it.
            pub fn address(&self) -> String {
                let url = self.url();
                let (_, rest) = url.rsplit_once('@').or_else(|| url.split_once("://")).unwrap_or(("", url));
                rest.split('/').next().unwrap_or(rest).to_owned()
            }

            /// Starts it again, on the same port with the same data.
            ///
            /// # Panics
            ///
            /// When it does not come up.
            pub async fn start(&self) {
                self.server().start().await.unwrap_or_else(|error| panic!("{error:#}"));
            }

            /// Stops it in good order.
            ///
            /// # Panics
            ///
            /// When it does not stop.
            pub async fn stop(&self) {
                self.server().stop().await.unwrap_or_else(|error| panic!("{error:#}"));
            }

            /// Kills it with SIGKILL, as a power cut would.
            pub fn kill(&self) {
                self.server().kill();
            }

            /// Freezes it: connections stay open, new ones are taken by the kernel, and nothing answers.
            pub fn pause(&self) {
                self.server().pause();
            }

            /// Has it go on after [`Self::pause`].
            pub fn resume(&self) {
                self.server().resume();
            }
        }
    };
}

private_server!(PrivatePostgres, |private| &private.0);
private_server!(PrivateRedis, |private| &private.0);
private_server!(PrivatePgBouncer, |private| &private.0);
private_server!(PrivateRabbitMq, |private| private.0.broker());
