//! `api migrate`: brings the database up to this build.

use std::{fmt, time::Duration};

use anyhow::Context as _;
use secrecy::SecretString;
use shared::platform::db::{DbPool, PoolSettings, Servers};
use sqlx::migrate::Migrator;

pub use shared::platform::schema::MIGRATIONS;

/// A migration can rewrite a large table.
const STATEMENT_LIMIT: Duration = Duration::from_hours(6);
/// How long a migration waits for users of a table, and for another process that migrates.
const LOCK_LIMIT: Duration = Duration::from_mins(10);

/// The migrations of the database after `api migrate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaVersion {
    /// All migrations of this build, and no others.
    Current(i64),
    /// Also migrations of a newer build. Programs work on a newer schema, so that they can be rolled back.
    Newer {
        /// The last migration in the database.
        database: i64,
        /// The last migration of this build.
        build: i64,
    },
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current(version) => {
                write!(f, "the database has migration {version}, the last of this build")
            }
            Self::Newer { database, build } => write!(
                f,
                "the database has migration {database}, of a newer build; this one ends with {build} and changes nothing more"
            ),
        }
    }
}

/// Applies the migrations that are missing. Several processes can do so at once: a lock in the database makes them take turns.
///
/// It is an error if a migration was changed after it had been applied, but not if this build does not know a migration.
pub async fn migrate(url: &SecretString) -> anyhow::Result<SchemaVersion> {
    let settings = PoolSettings::new("api migrate", 1).with_limits(STATEMENT_LIMIT, LOCK_LIMIT);
    let db = DbPool::new(Servers::primary(url).context("DATABASE_URL")?, settings);
    let mut connection = db.acquire().await.context("PostgreSQL cannot be reached")?;
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    migrator.set_ignore_missing(true);
    migrator.run(&mut *connection).await.context("the migrations cannot be applied")?;
    let database: i64 = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await
        .context("the applied migrations cannot be read")?;
    connection.release();
    let build = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    Ok(if database > build {
        SchemaVersion::Newer { database, build }
    } else {
        SchemaVersion::Current(build)
    })
}
