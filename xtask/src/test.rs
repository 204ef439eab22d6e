//! `cargo xtask test`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use testbed::native::Storage;
use testbed::process::Launch;
use testbed::{install, paths, python, source};

use crate::say::say;
use crate::system::{self, Role, System};
use crate::{cargo, needs, settings};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose name contains this
    filter: Option<String>,
    /// Leave out the tests that need a program written in Python: SQS (LocalStack) and schemathesis
    #[arg(long)]
    without_python: bool,
}

/// What `--without-python` leaves out.
const NOT_TESTED: &str = "WARNING: SQS and the API's document are NOT TESTED, because of --without-python (no LocalStack, no schemathesis)";
/// The same in the language of nextest. A test that needs SQS has it in its name.
const WITHOUT_PYTHON: [&str; 2] = ["--filterset", "not test(/sqs|schemathesis/)"];

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    system::throwaway(async |system| Box::pin(test(system, &args)).await).await
}

async fn test(system: &System, args: &Args) -> anyhow::Result<ExitCode> {
    // Before anything is built, so that nobody learns after minutes that something is missing.
    if let Err(error) = needs::for_tests(!args.without_python).await {
        let is_python_missing = !args.without_python && install::find_python().is_none();
        let hint = if is_python_missing { "\nWithout Python: cargo xtask test --without-python" } else { "" };
        bail!("{error:#}{hint}");
    }
    cargo::provide("nextest").await?;
    if args.without_python {
        say(NOT_TESTED);
    }
    say("Starting the servers for the tests, and building the tests.");
    let (database, redis, rabbitmq, sqs) = (
        settings::given("DATABASE_URL"),
        settings::given("REDIS_URL"),
        settings::given("TESTBED_AMQP_URL"),
        settings::given("TESTBED_SQS_ENDPOINT"),
    );
    let management = settings::given("TESTBED_AMQP_MANAGEMENT_URL");

    // The brokers take a dozen seconds to start, and what is written in Python a minute to install: the build runs
    // meanwhile.
    let storage = &Storage::Throwaway;
    let rabbitmq = rabbitmq.as_deref().map(|url| (url, management.as_deref()));
    let (database, redis, rabbitmq, sqs, compiled) = tokio::try_join!(
        system.serve(Role::Postgres, "PostgreSQL", source::postgres(database.as_deref(), storage)),
        system.serve(Role::Redis, "Redis", source::redis(redis.as_deref(), storage)),
        system.serve(Role::Broker, "RabbitMQ", source::rabbitmq(rabbitmq, storage)),
        async {
            if args.without_python {
                return Ok(None);
            }
            let sqs = system.serve(Role::Broker, "LocalStack", source::sqs(sqs.as_deref(), storage)).await?;
            prepare_schemathesis().await?;
            Ok(Some(sqs.url))
        },
        async { cargo::run(&cargo::command(&["nextest", "run", "--no-run", "--workspace"])).await },
    )?;
    if !compiled.success() {
        return Ok(ExitCode::FAILURE);
    }
    let management =
        rabbitmq.management_url.context("TESTBED_AMQP_URL needs TESTBED_AMQP_MANAGEMENT_URL beside it")?;

    let tests: Launch = cargo::command(&["nextest", "run", "--workspace"])
        .args(&args.filter)
        .args(if args.without_python { WITHOUT_PYTHON.as_slice() } else { &[] })
        .env("DATABASE_URL", database.url)
        .env("REDIS_URL", redis.url)
        .env("TESTBED_AMQP_URL", rabbitmq.url)
        .env("TESTBED_AMQP_MANAGEMENT_URL", management)
        .env("TESTBED_SQS_ENDPOINT", sqs.unwrap_or_default())
        // It runs in a process group of its own and may not read from the terminal.
        .env("NEXTEST_NO_INPUT_HANDLER", "1");
    let status = cargo::run(&tests).await?;
    if args.without_python {
        say(NOT_TESTED);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// Installs what the test of the API's document runs, which would take that test a minute.
async fn prepare_schemathesis() -> anyhow::Result<()> {
    let requirements = paths::workspace().join("api/tests/schemathesis/requirements.txt");
    python::environment("Schemathesis", &requirements, "use --without-python").await.map(|_| ())
}
