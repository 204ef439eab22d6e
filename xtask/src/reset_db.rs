//! `cargo xtask reset-db`.

use std::process::ExitCode;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::say::say;
use crate::{clear_cache, settings};

/// What is not data: the migrations that were applied, and the relay's place in the log, which stays right.
const KEPT: &[&str] = &["_sqlx_migrations", "relay"];

pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    let database = settings::running("DATABASE_URL")?;
    let redis = settings::running("REDIS_URL")?;
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

    // Ids go on from where they are: a running API holds a block of them already.
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql("SET LOCAL lock_timeout = '20s'").execute(&mut *transaction).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("TRUNCATE {}", tables.join(", "))))
        .execute(&mut *transaction)
        .await
        .context("the tables are in use")?;
    transaction.commit().await?;
    // After the rows are gone, as a read in between would cache one of them again.
    clear_cache::clear(&redis).await?;
    say("The database and the cache are empty.");
    Ok(ExitCode::SUCCESS)
}
