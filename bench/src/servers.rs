//! The servers of a run: private PostgreSQL and Redis with durable settings, and a database for each case.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testbed::native::{self, Server, Storage};
use testbed::paths;

use crate::cpu::Costs;
use crate::programs::Running;

/// A case uses a handful of connections at a time.
const CONNECTIONS: u32 = 8;

/// Beyond the defaults, which survive a power cut (`fsync` and `synchronous_commit` are on):
/// commit times are what the lag is measured by; fewer checkpoints, and no vacuuming of what one case has left while
/// another one is measured, make rounds alike. For case and reference alike.
const SETTINGS: &[&str] =
    &["track_commit_timestamp = on", "max_wal_size = '4GB'", "shared_buffers = '512MB'", "autovacuum = off"];

/// The same for Redis: its append-only file is not written anew in the middle of a round.
const REDIS_SETTINGS: &[(&str, &str)] = &[("auto-aof-rewrite-percentage", "0")];

/// PostgreSQL and Redis with their data in a folder that is removed at the end.
#[derive(Debug)]
pub struct Servers {
    postgres: Server,
    redis: Server,
    folder: PathBuf,
}

impl Servers {
    /// Starts both.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = folder()?;
        let keep = |name: &str| Storage::Keep(folder.join(name));
        let (postgres_storage, redis_storage) = (keep("postgres"), keep("redis"));
        let (postgres, redis) =
            tokio::try_join!(native::postgres(&postgres_storage), native::redis(&redis_storage))?;
        let mut admin = PgConnection::connect(postgres.url()).await?;
        for setting in SETTINGS {
            sqlx::raw_sql(AssertSqlSafe(format!("ALTER SYSTEM SET {setting}"))).execute(&mut admin).await?;
        }
        admin.close().await?;
        // Two of them are read at start only.
        postgres.stop().await?;
        postgres.start().await?;
        let servers = Self { postgres, redis, folder };
        let mut connection = servers.redis().await?;
        for (name, value) in REDIS_SETTINGS {
            redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut connection).await?;
        }
        Ok(servers)
    }

    /// Stops both.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.postgres.stop().await?;
        self.redis.stop().await
    }

    /// For logs and scratch files; removed at the end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Their versions and what makes them durable.
    pub async fn describe(&self) -> anyhow::Result<String> {
        let mut connection = PgConnection::connect(self.postgres.url()).await?;
        let (version, fsync, commit): (String, String, String) = sqlx::query_as(
            "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('fsync'),
                    current_setting('synchronous_commit')",
        )
        .fetch_one(&mut connection)
        .await?;
        let mut redis = self.redis().await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut redis).await?;
        let redis_version =
            info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown");
        Ok(format!(
            "PostgreSQL {version} (fsync {fsync}, synchronous_commit {commit}), Redis {} (append-only file)",
            redis_version.trim()
        ))
    }

    /// A new database with the migrations applied.
    pub async fn database(&self, name: &str) -> anyhow::Result<String> {
        self.create(name, "template0").await?;
        let url = self.database_url(name);
        testbed::migrate(&url).await?;
        Ok(url)
    }

    /// A copy of a database without connections.
    pub async fn copy(&self, from: &str, name: &str) -> anyhow::Result<String> {
        self.create(name, from).await?;
        Ok(self.database_url(name))
    }

    /// Counts the processor time of both, and of a program that is measured.
    pub fn costs(&self, name: &'static str, program: &Running) -> Costs {
        let servers = [("PostgreSQL", self.postgres.id()), ("Redis", self.redis.id())];
        let mut programs = vec![(name, program.id())];
        programs.extend(servers.into_iter().filter_map(|(name, id)| Some((name, id?))));
        Costs::of(&programs)
    }

    /// Redis' address. Cases take turns on it, each after [`Self::flush`].
    pub fn redis_url(&self) -> &str {
        self.redis.url()
    }

    /// A connection to Redis.
    pub async fn redis(&self) -> anyhow::Result<redis::aio::MultiplexedConnection> {
        testbed::connect_redis(self.redis.url()).await
    }

    /// Empties Redis, and its append-only file.
    pub async fn flush(&self) -> anyhow::Result<()> {
        let mut connection = self.redis().await?;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
        redis::cmd("BGREWRITEAOF").exec_async(&mut connection).await?;
        crate::wait::until("Redis has emptied its append-only file", async || {
            let info: String =
                redis::cmd("INFO").arg("persistence").query_async(&mut connection.clone()).await?;
            Ok(info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0"))
        })
        .await
    }

    async fn create(&self, name: &str, template: &str) -> anyhow::Result<()> {
        let mut admin = PgConnection::connect(&self.database_url("postgres")).await?;
        for sql in [
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await?;
        }
        admin.close().await?;
        Ok(())
    }

    fn database_url(&self, name: &str) -> String {
        let server = self.postgres.url().rsplit_once('/').map_or("", |(server, _)| server);
        format!("{server}/{name}")
    }
}

/// A pool on a case's database.
pub async fn pool(url: &str) -> anyhow::Result<PgPool> {
    let options: PgConnectOptions = url.parse()?;
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect_with(options)
        .await
        .with_context(|| format!("cannot connect to {}", url.rsplit_once('@').map_or(url, |(_, host)| host)))
}

/// On a real disk (`/tmp` may be memory, where fsync costs nothing), and in reach of PostgreSQL's user.
fn folder() -> anyhow::Result<PathBuf> {
    let parent = [PathBuf::from("/var/tmp"), std::env::temp_dir()]
        .into_iter()
        .find(|folder| folder.is_dir() && paths::reachable_by_all(folder))
        .context("there is no temporary folder that every user can reach")?;
    let folder = parent.join(format!("orders-bench-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
    testbed::watchdog::remove_at_end(&folder)?;
    Ok(folder)
}
