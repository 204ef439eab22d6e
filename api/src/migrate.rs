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
/// The table in which sqlx keeps what is applied.
const APPLIED_MIGRATIONS: &str = "_sqlx_migrations";
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
    drop_indexes_of_interrupted_migrations(&mut connection)
        .await
        .context("an index that an interrupted migration has left cannot be dropped")?;
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

/// Drops the indexes of migrations that are not applied yet. One that was interrupted has left its index half built, or whole, if
/// the server finished it after the client was gone: it will build the index again. Nothing else is touched.
async fn drop_indexes_of_interrupted_migrations(db: &mut PgConnection) -> anyhow::Result<()> {
    db.ensure_migrations_table(APPLIED_MIGRATIONS).await?;
    let applied = db.list_applied_migrations(APPLIED_MIGRATIONS).await?;
    let applied: Vec<i64> = applied.into_iter().map(|migration| migration.version).collect();
    let missing = MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version));
    for index in missing.filter_map(|migration| index_built_beside_writers(migration.sql.as_str())) {
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
        sqlx::query(AssertSqlSafe(drop)).execute(&mut *db).await?;
    }
    Ok(())
}

/// The name of the index that a migration builds outside of a transaction, which it does by its only statement.
fn index_built_beside_writers(migration: &str) -> Option<&str> {
    let (_, statement) = migration.split_once("INDEX CONCURRENTLY ")?;
    statement.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_that_is_built_beside_writers_is_known_by_its_name() {
        let outside = MIGRATIONS.iter().filter(|migration| migration.no_tx);
        let names: Vec<_> =
            outside.map(|migration| index_built_beside_writers(migration.sql.as_str())).collect();
        let expected = [
            "accounts_email_of_tenant",
            "orders_by_tenant_customer",
            "orders_by_tenant_creation",
            "orders_by_reference",
            "order_lines_by_tenant_product",
        ];
        assert_eq!(names, expected.map(Some));
        let mut inside = MIGRATIONS.iter().filter(|migration| !migration.no_tx);
        assert_eq!(inside.find_map(|migration| index_built_beside_writers(migration.sql.as_str())), None);
    }
}
