//! The worker: `worker run` consumes events, the other commands are for operators.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use shared::platform::{
    config::{ConfigError, Env},
    runtime, telemetry,
    text::printable,
};
use worker::{
    cli::{Cli, Command},
    commands,
    config::WorkerConfig,
    errors, run,
};

/// Allocation is a large part of the cost of an event, and the system's allocator is slow with several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Run);
    let configured =
        Env::from_process().and_then(|env| Ok((WorkerConfig::from_env(&env)?, runtime::threads(&env)?)));
    let (config, threads) = match configured {
        Ok(configured) => configured,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    execute_command(command, config, threads).unwrap_or_else(|error| {
        eprintln!("{}", printable(&errors::chain(error.as_ref()), false));
        // A setting that cannot be used has an exit code of its own.
        ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
    })
}

fn execute_command(command: Command, config: WorkerConfig, threads: usize) -> anyhow::Result<ExitCode> {
    runtime::new(threads).context("cannot start the threads")?.block_on(async {
        match command {
            Command::Run => run_with_telemetry(config).await.map(|()| ExitCode::SUCCESS),
            command => commands::execute_command(command, &config).await,
        }
    })
}

async fn run_with_telemetry(config: WorkerConfig) -> anyhow::Result<()> {
    let _log_guard = telemetry::init(&config.telemetry);
    let ended = run::run_worker(config).await;
    telemetry::flush_traces().await;
    ended
}
