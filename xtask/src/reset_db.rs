//! `cargo xtask reset-db`.

use std::process::ExitCode;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::status::print_status;
use crate::{clear_cache, settings};

/// Not data: the applied migrations, the position of the relay in the log, which stays valid, and what migrations have put there.
const KEPT: &[&str] = &["_sqlx_migrations", "relay", "log_eras", "tenants"];

pub(crate) async fn reset_db() -> anyhow::Result<ExitCode> {
    let database = settings::running_system("DATABASE_URL")?;
    let redis = settings::running_system("REDIS_URL")?;
    testbed::migrate(&database).await?;
    let mut connection = PgConnection::connect(&database)
        .await
        .context("the PostgreSQL server at DATABASE_URL does not answer")?;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
         WHERE schemaname = current_schema() AND tablename <> ALL ($1)",
    )
    .bind(KEPT)
    .fetch_all(&mut connection)
    .await?;

    // Ids continue: a running API holds a block of them already.
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql("SET LOCAL lock_timeout = '20s'").execute(&mut *transaction).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("TRUNCATE {}", tables.join(", "))))
        .execute(&mut *transaction)
        .await
        .context("the tables are in use")?;
    sqlx::raw_sql("DELETE FROM tenants WHERE id <> 1").execute(&mut *transaction).await?;
    transaction.commit().await?;
    // After the rows are gone, as a read in between would cache one of them again.
    clear_cache::remove_cached_orders(&redis).await?;
    print_status("The database and the cache are empty.");
    Ok(ExitCode::SUCCESS)
}
