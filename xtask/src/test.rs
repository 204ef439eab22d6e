//! `cargo xtask test`.

use std::process::ExitCode;

use anyhow::Context;
use testbed::native::Storage;
use testbed::process::Launch;
use testbed::{install, source};

use crate::say::say;
use crate::system::{self, Role, System};
use crate::{cargo, settings};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    system::throwaway(async |system| Box::pin(test(system, &args)).await).await
}

async fn test(system: &System, args: &Args) -> anyhow::Result<ExitCode> {
    say("Starting PostgreSQL, Redis, RabbitMQ and LocalStack for the tests, and building them.");
    let nextest = install::exists("cargo-nextest");
    let build: &[&str] = if nextest { &["nextest", "run", "--no-run"] } else { &["test", "--no-run"] };
    let (database, redis, rabbitmq, sqs) = (
        settings::given("DATABASE_URL"),
        settings::given("REDIS_URL"),
        settings::given("TESTBED_AMQP_URL"),
        settings::given("TESTBED_SQS_ENDPOINT"),
    );
    let management = settings::given("TESTBED_AMQP_MANAGEMENT_URL");

    // The brokers take a dozen seconds to start, or minutes where they are to be installed: the build runs meanwhile.
    let storage = &Storage::Throwaway;
    let rabbitmq = rabbitmq.as_deref().map(|url| (url, management.as_deref()));
    let (database, redis, rabbitmq, sqs, compiled) = tokio::try_join!(
        system.serve(Role::Postgres, "PostgreSQL", source::postgres(database.as_deref(), storage)),
        system.serve(Role::Redis, "Redis", source::redis(redis.as_deref(), storage)),
        system.serve(Role::Broker, "RabbitMQ", source::rabbitmq(rabbitmq, storage)),
        system.serve(Role::Broker, "LocalStack", source::sqs(sqs.as_deref(), storage)),
        async { cargo::run(&cargo::command(build).arg("--workspace")).await },
    )?;
    if !compiled.success() {
        return Ok(ExitCode::FAILURE);
    }
    let management =
        rabbitmq.management_url.context("TESTBED_AMQP_URL needs TESTBED_AMQP_MANAGEMENT_URL beside it")?;

    let run: &[&str] = if nextest { &["nextest", "run", "--workspace"] } else { &["test", "--workspace"] };
    let tests: Launch = cargo::command(run)
        .args(&args.filter)
        .env("DATABASE_URL", database.url)
        .env("REDIS_URL", redis.url)
        .env("TESTBED_AMQP_URL", rabbitmq.url)
        .env("TESTBED_AMQP_MANAGEMENT_URL", management)
        .env("TESTBED_SQS_ENDPOINT", sqs.url)
        // It runs in a process group of its own and may not read from the terminal.
        .env("NEXTEST_NO_INPUT_HANDLER", "1");
    let status = cargo::run(&tests).await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
