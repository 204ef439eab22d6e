//! `api serve`, `api migrate`, `api openapi`, `api asyncapi`.

use std::process::ExitCode;

use anyhow::Context as _;
use api::{
    app::{App, serve_operators},
    config::ApiConfig,
    http::{openapi::asyncapi, router},
    migrate,
};
use clap::{Parser, Subcommand};
use shared::{
    domain::clock::Clock,
    platform::{
        config::{ConfigError, Env, UrlKind},
        redis, runtime,
        shutdown::{DRAIN_DEADLINE, Shutdown},
        telemetry,
    },
};
use tokio::runtime::Runtime;

/// The HTTP side of the order system.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Subcommand)]
enum Command {
    /// Serve the API (the default).
    Serve,
    /// Bring the database up to this build.
    Migrate,
    /// Print the `OpenAPI` document.
    Openapi,
    /// Print the `AsyncAPI` document.
    Asyncapi,
}

/// A request spends much of its time on allocation, and the system's allocator is slow with several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    let Err(error) = execute(command) else { return ExitCode::SUCCESS };
    eprintln!("{error:#}");
    // A setting that cannot be used has an exit code of its own.
    ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve => {
            let env = Env::from_process()?;
            let config = ApiConfig::from_env(&env)?;
            new_runtime(&env)?.block_on(serve(config))
        }
        Command::Migrate => {
            let env = Env::from_process()?;
            let database = env.required_url("DATABASE_URL", UrlKind::Postgres)?;
            println!("{}", new_runtime(&env)?.block_on(migrate::migrate(&database))?);
            Ok(())
        }
        Command::Openapi => {
            println!("{}", router::document().to_pretty_json()?);
            Ok(())
        }
        Command::Asyncapi => {
            println!("{:#}", asyncapi::document());
            Ok(())
        }
    }
}

fn new_runtime(env: &Env) -> anyhow::Result<Runtime> {
    runtime::new(runtime::threads(env)?).context("cannot start the threads")
}

async fn serve(config: ApiConfig) -> anyhow::Result<()> {
    let _last_lines = telemetry::init(&config.telemetry);
    let metrics = telemetry::install_metrics()?;
    let shutdown = Shutdown::new();
    shutdown.listen_for_signals()?;

    redis::check_url(&config.redis_url).await.map_err(|problem| ConfigError::new("REDIS_URL", problem))?;
    config.broker.check_server().await?;
    let operators = serve_operators(config.metrics, metrics, &shutdown).await?;
    let app = App::start(config, Clock::System, &shutdown).await?;
    operators.attach(&app.state.health);

    shutdown.begun().await;
    if !shutdown.drained(DRAIN_DEADLINE).await {
        tracing::warn!("shutdown: some requests were still running after the deadline");
    }
    telemetry::flush_traces().await;
    Ok(())
}
