//! `cargo xtask test`.

use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, bail};
use testbed::native::Storage;
use testbed::process::Launch;
use testbed::{install, paths, python, source};

use crate::status::print_status;
use crate::system::{self, Role, System};
use crate::{cargo, requirements, settings};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose name contains one of these
    filters: Vec<String>,
    /// Build and run only the tests of this package; can be repeated
    #[arg(short, long = "package", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(PACKAGES))]
    packages: Vec<String>,
    /// Leave out the tests that need a package from Python's index: SQS (LocalStack), schemathesis, and generated clients
    #[arg(long)]
    without_python: bool,
    /// Run only the tests that are marked as ignored: long proofs, which need the machine for themselves
    #[arg(long)]
    ignored: bool,
}

/// The members of the workspace.
const PACKAGES: [&str; 8] = ["api", "worker", "shared", "e2e", "models", "testbed", "xtask", "bench"];
/// Those with a program of their own.
const PROGRAMS: [&str; 4] = ["api", "worker", "xtask", "bench"];
/// Those whose tests start the API and the worker as processes.
const STARTS_PROGRAMS: [&str; 3] = ["e2e", "xtask", "bench"];

/// What `--without-python` leaves out.
const NOT_TESTED: &str = "WARNING: SQS and the API's document are NOT TESTED, because of --without-python (no LocalStack, \
                          no schemathesis, no generated clients)";
/// The same as a filter of nextest. A test that needs SQS has it in its name.
const WITHOUT_PYTHON: &str = "not test(/sqs|schemathesis|generated_clients/)";

pub(crate) async fn run_tests(args: Args) -> anyhow::Result<ExitCode> {
    system::with_temporary_servers(async |system| Box::pin(test_with(system, &args)).await).await
}

async fn test_with(system: &System, args: &Args) -> anyhow::Result<ExitCode> {
    // Before anything is built, so that nobody learns after minutes that something is missing.
    if let Err(error) = requirements::install_for_tests(!args.without_python).await {
        let is_python_missing = !args.without_python && install::find_python().is_none();
        let hint = if is_python_missing { "\nWithout Python: cargo xtask test --without-python" } else { "" };
        bail!("{error:#}{hint}");
    }
    cargo::install_tool("nextest").await?;
    if args.without_python {
        print_status(NOT_TESTED);
    }
    print_status("Starting the servers for the tests, and building the tests.");
    let (database, redis, rabbitmq, sqs) = (
        settings::foreign_server("DATABASE_URL"),
        settings::foreign_server("REDIS_URL"),
        settings::foreign_server("TESTBED_AMQP_URL"),
        settings::foreign_server("TESTBED_SQS_ENDPOINT"),
    );
    let management = settings::foreign_server("TESTBED_AMQP_MANAGEMENT_URL");

    // The brokers take a dozen seconds to start, and what is written in Python a minute to install: the build runs
    // meanwhile.
    let storage = &Storage::Throwaway;
    let rabbitmq = rabbitmq.as_deref().map(|url| (url, management.as_deref()));
    let (database, redis, rabbitmq, sqs, compiled) = tokio::try_join!(
        system.start_server(Role::Postgres, "PostgreSQL", source::postgres(database.as_deref(), storage)),
        system.start_server(Role::Redis, "Redis", source::redis(redis.as_deref(), storage)),
        system.start_server(Role::Broker, "RabbitMQ", source::rabbitmq(rabbitmq, storage)),
        async {
            if args.without_python {
                return Ok(None);
            }
            let sqs =
                system.start_server(Role::Broker, "LocalStack", source::sqs(sqs.as_deref(), storage)).await?;
            install_document_tools().await?;
            Ok(Some(sqs.url))
        },
        build_tests(&args.packages),
    )?;
    if !compiled.success() {
        return Ok(ExitCode::FAILURE);
    }
    let management =
        rabbitmq.management_url.context("TESTBED_AMQP_URL needs TESTBED_AMQP_MANAGEMENT_URL beside it")?;

    let tests: Launch = cargo::in_workspace(&["nextest", "run"])
        .args(cargo_targets(&args.packages))
        .args(args.ignored.then_some("--run-ignored=only"))
        .args(&args.filters)
        .args(filterset(args).map(|set| ["--filterset".to_owned(), set]).into_iter().flatten())
        .env("DATABASE_URL", database.url)
        .env("REDIS_URL", redis.url)
        .env("TESTBED_AMQP_URL", rabbitmq.url)
        .env("TESTBED_AMQP_MANAGEMENT_URL", management)
        .env("TESTBED_SQS_ENDPOINT", sqs.unwrap_or_default())
        // It runs in a process group of its own and may not read from the terminal.
        .env("NEXTEST_NO_INPUT_HANDLER", "1");
    let mut status = cargo::run_command(&tests).await?;
    // nextest does not run the examples in the documentation.
    if status.success() && args.filters.is_empty() && args.packages.is_empty() {
        status = cargo::run_command(&cargo::in_workspace(&["test", "--doc", "--workspace"])).await?;
    }
    if args.without_python {
        print_status(NOT_TESTED);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// Builds the tests, and the programs that they start.
async fn build_tests(packages: &[String]) -> anyhow::Result<ExitStatus> {
    if packages.iter().any(|package| STARTS_PROGRAMS.contains(&package.as_str())) {
        let programs = cargo::in_workspace(&["build", "--bin", "api", "--bin", "worker"]);
        let status = cargo::run_command(&programs).await?;
        if !status.success() {
            return Ok(status);
        }
    }
    let tests = cargo::in_workspace(&["nextest", "run", "--no-run"]).args(cargo_targets(packages));
    cargo::run_command(&tests).await
}

/// The targets that cargo builds. Always of the whole workspace, never by `--package`: cargo would choose other features for
/// the dependencies, and build them again.
fn cargo_targets(packages: &[String]) -> Vec<String> {
    let mut targets = vec!["--workspace".to_owned()];
    if packages.is_empty() {
        return targets;
    }
    targets.push("--lib".to_owned());
    for package in packages {
        targets.extend(["--test".to_owned(), format!("{package}_it")]);
        if PROGRAMS.contains(&package.as_str()) {
            targets.extend(["--bin".to_owned(), package.clone()]);
        }
    }
    targets
}

/// The tests to run of those that were built, as an expression of nextest.
fn filterset(args: &Args) -> Option<String> {
    let packages: Vec<String> = args.packages.iter().map(|package| format!("package({package})")).collect();
    let mut parts = Vec::new();
    if !packages.is_empty() {
        parts.push(format!("({})", packages.join(" | ")));
    }
    if args.without_python {
        parts.push(WITHOUT_PYTHON.to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(" & "))
}

/// Installs what the tests of the API's document run, which would take them a minute.
async fn install_document_tools() -> anyhow::Result<()> {
    let tests = paths::workspace().join("api/tests");
    for (title, folder) in [("Schemathesis", "schemathesis"), ("Client-generators", "generated_clients")] {
        let requirements = tests.join(folder).join("requirements.txt");
        python::environment(title, &requirements, "use --without-python").await?;
    }
    Ok(())
}
