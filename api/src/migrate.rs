//! `api migrate`: brings the database up to this build.

use std::{fmt, time::Duration};

use anyhow::Context as _;
use secrecy::SecretString;
use shared::platform::db::{DbPool, PoolSettings, Servers};
use sqlx::migrate::Migrator;

pub use shared::platform::schema::MIGRATIONS;

/// A migration may rewrite a large table.
const STATEMENT_LIMIT: Duration = Duration::from_hours(6);
/// How long it waits for those who use a table, and for another process that migrates.
const LOCK_LIMIT: Duration = Duration::from_mins(10);

/// What the database has after `api migrate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Every migration of this build and no other.
    Current(i64),
    /// Migrations of a newer build, too. Programs go on working on a newer schema, so that they can be rolled back.
    Newer {
        /// The last migration in the database.
        database: i64,
        /// The last migration of this build.
        build: i64,
    },
}

impl fmt::Display for Schema {
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

/// Applies what is missing. Several processes may do so at once: a lock in the database makes them take turns.
///
/// A migration that was changed after it had been applied is an error. One that this build does not know is not.
pub async fn migrate(url: &SecretString) -> anyhow::Result<Schema> {
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
    Ok(if database > build { Schema::Newer { database, build } } else { Schema::Current(build) })
}
