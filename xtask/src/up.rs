//! `cargo xtask up`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use testbed::native::Storage;
use testbed::source::{Failover, Service};
use testbed::{Program, ProgramBuilder, paths, port, source};

use crate::settings::Variables;
use crate::signals::Signals;
use crate::status::print_status;
use crate::system::{Role, System};
use crate::{cargo, lock, settings};

/// The metrics of an API on port 8000 are on 9090, and those of its workers on the ports from there.
const METRICS_ABOVE_PORT: u16 = 1090;
/// The queue that `--events sqs` uses.
const QUEUE: &str = "order-events";

/// Options of `up`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many workers share the events
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=64))]
    workers: u16,
    /// What carries the events
    #[arg(long, value_enum, default_value_t = Events::Local)]
    events: Events,
    /// Which Redis: one server, or several that replace each other; each kind keeps data of its own
    #[arg(long, value_enum, default_value_t = Redis::Single)]
    redis: Redis,
    /// The port of the API
    #[arg(long, value_name = "P", default_value_t = 8000)]
    port: u16,
    /// Build and run optimised programs; the first build takes twice as long
    #[arg(long)]
    release: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Events {
    /// Redis Streams
    Local,
    /// Amazon SQS, by LocalStack
    Sqs,
    /// RabbitMQ
    Rabbitmq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Redis {
    /// One server
    Single,
    /// A master with two replicas that three sentinels watch
    Sentinel,
    /// A cluster of three masters with a replica each
    Cluster,
}

pub(crate) async fn run_up(args: Args) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let _lock = lock::acquire().await?;
    let system = System::default();
    let outcome = tokio::select! {
        outcome = start_and_supervise(&system, &args) => outcome,
        () = signals.recv() => Ok(()),
    };
    if !system.is_empty() {
        print_status("\nStopping; the data stays in .data");
    }
    tokio::select! {
        () = system.stop_all() => {}
        // At a second Ctrl-C the watchdog ends what is left, as if this process had been killed.
        () = signals.recv() => print_status("Stopping at once"),
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Starts everything, then keeps it up until something fails.
async fn start_and_supervise(system: &System, args: &Args) -> anyhow::Result<()> {
    ensure!(
        port::is_free(args.port),
        "port {} is taken by another program: stop that one, or choose another by --port",
        args.port
    );

    print_status("1/4  Starting PostgreSQL and Redis");
    let storage = &Storage::Keep(paths::data());
    let database = settings::foreign_server("DATABASE_URL");
    let (database, redis) = tokio::try_join!(
        system.start_server(Role::Postgres, "PostgreSQL", source::postgres(database.as_deref(), storage)),
        system.start_server(Role::Redis, "Redis", start_redis(args.redis, storage)),
    )?;

    let later = if args.release { "minutes, too" } else { "seconds" };
    print_status(format!(
        "2/4  Building the API and the worker; the first build takes minutes, later ones {later}"
    ));
    let (events, ()) =
        tokio::try_join!(start_broker(system, args.events, storage), build_programs(args.release))?;
    let mut variables = events;
    variables.insert("DATABASE_URL".into(), database.url);
    variables.insert("REDIS_URL".into(), redis.url);

    print_status("3/4  Applying migrations");
    let migrated = configure_program(args, &variables, "api", "migrate")?.arg("migrate").run().await;
    migrated.context("the database could not be migrated")?;

    print_status("4/4  Starting the API and the workers");
    start_programs(system, args, &mut variables).await?;
    settings::write_variables(&variables)?;
    print_what_to_try(args);
    system.supervise().await
}

async fn start_redis(redis: Redis, storage: &Storage) -> anyhow::Result<Service> {
    let given = settings::foreign_server("REDIS_URL");
    let failover = match redis {
        Redis::Single => return source::redis(given.as_deref(), storage).await,
        Redis::Sentinel => Failover::Sentinel,
        Redis::Cluster => Failover::Cluster,
    };
    ensure!(given.is_none(), "REDIS_URL is set to a server that runs: unset it, or leave --redis out");
    source::redis_group(failover, storage).await
}

/// Starts the broker, and returns the variables with which the programs find it. A temporary one is never one that runs
/// already.
pub(crate) async fn start_broker(
    system: &System,
    events: Events,
    storage: &Storage,
) -> anyhow::Result<Variables> {
    let foreign_server = |name| match storage {
        Storage::Keep(_) => settings::foreign_server(name),
        Storage::Throwaway => None,
    };
    let pairs: Vec<(&str, String)> = match events {
        Events::Local => vec![("EVENT_SYSTEM", "local".into())],
        Events::Rabbitmq => {
            let given = foreign_server("AMQP_URL");
            let given = given.as_deref().map(|url| (url, None));
            let rabbitmq =
                system.start_server(Role::Broker, "RabbitMQ", source::rabbitmq(given, storage)).await?;
            vec![("EVENT_SYSTEM", "rabbitmq".into()), ("AMQP_URL", rabbitmq.url)]
        }
        Events::Sqs => {
            let given = foreign_server("AWS_ENDPOINT_URL");
            let sqs = system
                .start_server(Role::Broker, "LocalStack", source::sqs(given.as_deref(), storage))
                .await?;
            let queue = testbed::create_queue(&sqs.url, QUEUE).await?;
            vec![
                ("EVENT_SYSTEM", "sqs".into()),
                ("SQS_QUEUE_URL", queue),
                ("AWS_ENDPOINT_URL", sqs.url),
                ("AWS_REGION", "us-east-1".into()),
                ("AWS_ACCESS_KEY_ID", "test".into()),
                ("AWS_SECRET_ACCESS_KEY", "test".into()),
            ]
        }
    };
    Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

async fn build_programs(release: bool) -> anyhow::Result<()> {
    let command = cargo::in_workspace(&["build", "--bin", "api", "--bin", "worker"])
        .args(release.then_some("--release"));
    let status = cargo::run_command(&command).await?;
    ensure!(status.success(), "the API and the worker do not compile, see above");
    Ok(())
}

async fn start_programs(system: &System, args: &Args, variables: &mut Variables) -> anyhow::Result<()> {
    let address = format!("127.0.0.1:{}", metrics_port(args, 0));
    let api = configure_program(args, variables, "api", "api")?
        .arg("serve")
        // On loopback unless told otherwise, because the test login lets everybody in.
        .env("HOST", testbed::setting("HOST").unwrap_or_else(|| "127.0.0.1".into()))
        .env("PORT", args.port)
        .env("METRICS_ADDR", &address);
    let url = format!("http://127.0.0.1:{}", args.port);
    system.start_program(Role::Api, "The API", api, &format!("{url}/api/v1/health/ready")).await?;
    variables.insert("API_URL".into(), url);
    variables.insert("API_METRICS_ADDR".into(), address);

    let mut addresses = Vec::new();
    for number in 1..=args.workers {
        let name = format!("worker-{number}");
        let address = format!("127.0.0.1:{}", metrics_port(args, number));
        let worker =
            configure_program(args, variables, "worker", &name)?.arg("run").env("METRICS_ADDR", &address);
        system
            .start_program(
                Role::Worker,
                &format!("Worker {number}"),
                worker,
                &format!("http://{address}/health/ready"),
            )
            .await?;
        addresses.push(address);
    }
    variables.insert("WORKER_METRICS_ADDRS".into(), addresses.join(","));
    Ok(())
}

/// The port of a program's metrics depends on the API's port, so that several systems run side by side.
fn metrics_port(args: &Args, worker: u16) -> u16 {
    port::prefer(args.port.checked_add(METRICS_ABOVE_PORT + worker))
}

/// One of the binaries with its settings and an empty log file.
fn configure_program(
    args: &Args,
    variables: &Variables,
    binary: &str,
    log: &str,
) -> anyhow::Result<ProgramBuilder> {
    let binary = cargo::binaries(args.release)?.join(binary);
    if !binary.is_file() {
        bail!("{} is missing after the build", binary.display());
    }
    let log = paths::data().join("logs").join(format!("{log}.log"));
    let _absent = fs::remove_file(&log);
    Ok(Program::at(&binary, &log, &paths::workspace())
        .envs(variables)
        .env("TOKIO_WORKER_THREADS", testbed::threads_beside_servers())
        .env("DEBUG", "true")
        .env("JWT_SECRET", settings::jwt_secret()?))
}

fn print_what_to_try(args: &Args) {
    let host = format!("localhost:{}", args.port);
    print_status(format!(
        r#"
The system is ready.  API: http://{host}  Documentation: http://{host}/docs
Addresses: .data/env (`source .data/env`)  Logs: .data/logs  Ctrl-C stops it and keeps the data

Try it, in another terminal:

TOKEN=$(curl -s {host}/api/v1/auth/login-test -H 'Content-Type: application/json' -d '{{"customer_id": 123}}' | sed 's/.*"accessToken":"\([^"]*\)".*/\1/')

ORDER=$(curl -s {host}/api/v1/orders -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"order_date": "2025-01-20", "lines": [{{"product_id": 1001, "quantity": 2, "unit_price": 25.50}}, {{"product_id": 1002, "quantity": 1, "unit_price": 15.00}}]}}' | tee /dev/stderr | sed 's/^{{"id":\([0-9]*\).*/\1/')

curl -s {host}/api/v1/orders/$ORDER/history -H "Authorization: Bearer $TOKEN"
"#
    ));
}
