//! The commands for operators: each a file. Results go to standard output, progress and errors to standard error.
//! Their arguments are in `cli`, their SQL is in `store`.

mod connect;
mod dead_letters;
mod publisher;
mod rebuild_cache;
mod replay;
mod screen;
mod single_handler;
mod verify;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use shared::platform::{
    db::{DbPool, PoolSettings, Servers},
    table_locks::oldest_table_lock,
};

use self::connect::connect_cache;
use crate::{
    cli::{Command, DeadLetters},
    config::WorkerConfig,
    rights::RIGHTS,
    run,
};

/// The limit of a statement: commands read whole tables.
const STATEMENT_LIMIT: Duration = Duration::from_mins(10);
/// The limit of waiting for a lock, after which the command reports who holds it.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// The size of the pool.
const CONNECTIONS: u32 = 2;

/// Executes a command and returns its exit code. An error names the table that is missing, or who has locked it.
pub async fn execute_command(command: Command, config: &WorkerConfig) -> anyhow::Result<ExitCode> {
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
            _ => "it is free again; repeat the command".to_owned(),
        };
        return Err(error.context(format!("a table stayed locked for {LOCK_LIMIT:?}: {holder}")));
    }
    Err(error)
}

/// PostgreSQL's codes.
const UNDEFINED_TABLE: &str = "42P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Reports whether PostgreSQL refused with this code.
fn has_code(error: &(dyn std::error::Error + 'static), code: &str) -> bool {
    let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    database.is_some_and(|error| error.code().as_deref() == Some(code))
}

async fn run_command(command: Command, db: &DbPool, config: &WorkerConfig) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run => run::run_worker(config.clone()).await?,
        Command::DeadLetters(DeadLetters::List(list)) => {
            dead_letters::list::list_dead_letters(db, &list).await?;
        }
        Command::DeadLetters(DeadLetters::Show(show)) => {
            dead_letters::show::show_dead_letter(db, &show).await?;
        }
        Command::DeadLetters(DeadLetters::Redrive(redrive)) => {
            return dead_letters::redrive::redrive_dead_letters(db, config, &redrive).await;
        }
        Command::DeadLetters(DeadLetters::Purge(purge)) => {
            return dead_letters::purge::purge_dead_letters(db, &purge).await;
        }
        Command::Replay(which) => return replay::replay_events(db, config, &which).await,
        Command::RebuildCache => rebuild_cache::rebuild_cache(db, &connect_cache(config)?).await?,
        Command::Verify(how) => {
            return verify::verify_stores(
                &verify::Stores { db: db.clone(), cache: connect_cache(config)? },
                config,
                &how,
            )
            .await;
        }
    }
    Ok(ExitCode::SUCCESS)
}
