//! What operators do: each command a file. Results go to standard output, progress and errors to standard error.

mod dead_letters;
mod publisher;
mod rebuild_cache;
mod replay;
mod screen;
mod single_handler;
mod verify;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use shared::{
    cache::Cache,
    platform::{
        db::{DbConnection, DbPool, PoolSettings, Servers},
        table_locks::oldest_table_lock,
    },
};

use crate::{
    cli::{Command, DeadLetters},
    config::WorkerConfig,
    rights::RIGHTS,
    run,
};

/// Commands walk over many entries at a time and may wait for an answer.
const CACHE_DEADLINE: Duration = Duration::from_secs(5);
/// Commands look at whole tables.
const STATEMENT_LIMIT: Duration = Duration::from_mins(10);
/// Nobody waits here for a lock without being told.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// Commands do one thing after the other.
const CONNECTIONS: u32 = 2;

/// Does what an operator asked for; the exit code says how it went.
pub async fn execute(command: Command, config: &WorkerConfig) -> anyhow::Result<ExitCode> {
    let servers = Servers::primary(&config.database_url).context("DATABASE_URL cannot be used")?;
    let settings = PoolSettings::new("worker command", CONNECTIONS).with_limits(STATEMENT_LIMIT, LOCK_LIMIT);
    let db = DbPool::new(servers, settings);
    let error = match run_command(command, &db, config).await {
        Ok(code) => return Ok(code),
        Err(error) => error,
    };
    if error.chain().any(|error| has_code(error, UNDEFINED_TABLE)) {
        return Err(error.context("the database lacks a table: run `api migrate`"));
    }
    if error.chain().any(|error| has_code(error, LOCK_NOT_AVAILABLE)) {
        let holder = match oldest_table_lock(&db, RIGHTS).await {
            Ok(Some(lock)) => lock.to_string(),
            _ => "nobody holds it any more".to_owned(),
        };
        return Err(error.context(format!("a table stayed locked for {LOCK_LIMIT:?}: {holder}")));
    }
    Err(error)
}

/// PostgreSQL's codes.
const UNDEFINED_TABLE: &str = "42P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Whether PostgreSQL refused with this code.
fn has_code(error: &(dyn std::error::Error + 'static), code: &str) -> bool {
    let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    database.is_some_and(|error| error.code().as_deref() == Some(code))
}

async fn run_command(command: Command, db: &DbPool, config: &WorkerConfig) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run => run::run_worker(config.clone()).await?,
        Command::DeadLetters(DeadLetters::List(list)) => dead_letters::list::list(db, &list).await?,
        Command::DeadLetters(DeadLetters::Show(show)) => dead_letters::show::show(db, &show).await?,
        Command::DeadLetters(DeadLetters::Redrive(redrive)) => {
            return dead_letters::redrive::redrive(db, config, &redrive).await;
        }
        Command::DeadLetters(DeadLetters::Purge(purge)) => {
            return dead_letters::purge::purge(db, &purge).await;
        }
        Command::Replay(which) => return replay::replay(db, config, &which).await,
        Command::RebuildCache => rebuild_cache::rebuild_cache(db, &cache(config)?).await?,
        Command::Verify(how) => {
            return verify::verify(&verify::Stores { db: db.clone(), cache: cache(config)? }, config, &how)
                .await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn cache(config: &WorkerConfig) -> anyhow::Result<Cache> {
    Cache::new(&config.redis_url, config.cache_ttl, CACHE_DEADLINE).context("REDIS_URL cannot be used")
}

async fn connection(db: &DbPool) -> anyhow::Result<DbConnection> {
    db.acquire().await.context("PostgreSQL does not answer")
}
