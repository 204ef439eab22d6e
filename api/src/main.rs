//! `api serve`, `api migrate`, `api openapi`.

use std::process::ExitCode;

use api::{
    app::{App, serve_metrics},
    config::ApiConfig,
    migrate, openapi,
};
use clap::{Parser, Subcommand};
use shared::{
    clock::Clock,
    config::{ConfigError, Env, POSTGRES_SCHEMES},
    shutdown::{DRAIN_DEADLINE, Shutdown},
    telemetry,
};

/// The HTTP side of the order system.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (the default).
    Serve,
    /// Bring the database up to this build.
    Migrate,
    /// Print the `OpenAPI` document.
    Openapi,
}

/// Allocation is a good part of what a request costs, and the system's allocator serves several threads badly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command.unwrap_or(Command::Serve) {
        Command::Serve => serve().await,
        Command::Migrate => migrate().await,
        Command::Openapi => print_openapi(),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("{error:#}");
    // A setting that cannot be used is told apart from everything else that can go wrong.
    ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
}

async fn serve() -> anyhow::Result<()> {
    let config = ApiConfig::from_env(&Env::from_process()?)?;
    let _last_lines = telemetry::init(&config.telemetry)?;
    let metrics = telemetry::install_metrics()?;
    let shutdown = Shutdown::new();
    shutdown.listen_for_signals()?;

    serve_metrics(config.metrics, metrics, &shutdown).await?;
    let _app = App::start(config, Clock::System, &shutdown).await?;

    shutdown.begun().await;
    if !shutdown.drained(DRAIN_DEADLINE).await {
        tracing::warn!("some requests were still running");
    }
    telemetry::flush_traces().await;
    Ok(())
}

async fn migrate() -> anyhow::Result<()> {
    let env = Env::from_process()?;
    migrate::migrate(&env.required_url("DATABASE_URL", POSTGRES_SCHEMES)?).await
}

fn print_openapi() -> anyhow::Result<()> {
    println!("{}", openapi::document().to_pretty_json()?);
    Ok(())
}
