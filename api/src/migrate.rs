//! `api migrate`: brings the database up to this build.

use std::{fmt, time::Duration};

use anyhow::Context as _;
use secrecy::SecretString;
use shared::platform::db::{DbPool, PoolSettings, Servers};
use sqlx::{
    AssertSqlSafe, PgConnection,
    migrate::{Migrate as _, MigrateError, Migrator},
};
use tokio::time::Instant;

pub use shared::platform::schema::MIGRATIONS;

/// A migration can rewrite a large table.
const STATEMENT_LIMIT: Duration = Duration::from_hours(6);
/// How long a migration waits for users of a table, and for another process that migrates.
const LOCK_LIMIT: Duration = Duration::from_mins(10);
/// How long one attempt waits for another process that migrates. Building an index beside writers waits for every statement
/// that has begun before it, also for one that waits for the migration to end.
const TURN_LIMIT: Duration = Duration::from_millis(500);
/// `lock_not_available`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

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
    migrator.set_ignore_missing(true).set_locking(false);
    wait_for_turn(&mut connection).await.context("another process migrates this database")?;
    drop_unfinished_indexes(&mut connection).await.context("an unfinished index cannot be dropped")?;
    migrator.run(&mut *connection).await.context("the migrations cannot be applied")?;
    connection.unlock().await.context("the lock on migrations cannot be given back")?;
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

/// Waits until no other process migrates the database, and then keeps others from doing so.
async fn wait_for_turn(db: &mut PgConnection) -> anyhow::Result<()> {
    let deadline = Instant::now() + LOCK_LIMIT;
    set_lock_limit(db, TURN_LIMIT).await?;
    while let Err(error) = db.lock().await {
        if !is_lock_timeout(&error) || Instant::now() > deadline {
            return Err(error.into());
        }
    }
    Ok(set_lock_limit(db, LOCK_LIMIT).await?)
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let MigrateError::Execute(sqlx::Error::Database(error)) = error else { return false };
    error.code().is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}

async fn set_lock_limit(db: &mut PgConnection, limit: Duration) -> Result<(), sqlx::Error> {
    let set = format!("SET lock_timeout = {}", limit.as_millis());
    sqlx::query(AssertSqlSafe(set)).execute(db).await.map(drop)
}

/// Drops indexes that a migration has left half built because it was interrupted: it will build them again.
async fn drop_unfinished_indexes(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    let unfinished: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i
         JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname = current_schema()",
    )
    .fetch_all(&mut *db)
    .await?;
    for index in unfinished {
        sqlx::query(AssertSqlSafe(format!("DROP INDEX CONCURRENTLY {index}"))).execute(&mut *db).await?;
    }
    Ok(())
}
