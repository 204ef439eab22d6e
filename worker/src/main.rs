//! The worker: `worker run` consumes events, the other commands are for operators.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use shared::{config::Env, telemetry};
use worker::{
    cli::{Cli, Command},
    commands,
    config::WorkerConfig,
    errors, run,
};

/// Allocation is a good part of what an event costs, and the system's allocator serves several threads badly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Run);
    let config = match Env::from_process().and_then(|env| WorkerConfig::from_env(&env)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Run => consume(config).await.map(|()| ExitCode::SUCCESS),
        command => commands::execute(command, &config).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("{}", errors::chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

async fn consume(config: WorkerConfig) -> anyhow::Result<()> {
    let _last_lines = telemetry::init(&config.telemetry).context("cannot start logging")?;
    let ended = run::run(config).await;
    telemetry::flush_traces().await;
    ended
}
