//! `cargo xtask up`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use testbed::native::Storage;
use testbed::{Program, ProgramBuilder, paths, port, source};

use crate::say::say;
use crate::settings::Variables;
use crate::signals::Signals;
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
    /// The port of the API
    #[arg(long, value_name = "P", default_value_t = 8000)]
    port: u16,
    /// Build and run optimised programs; the first build takes twice as long
    #[arg(long)]
    release: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Events {
    /// Redis Streams
    Local,
    /// Amazon SQS, by LocalStack
    Sqs,
    /// RabbitMQ
    Rabbitmq,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let _lock = lock::take().await?;
    let system = System::default();
    let outcome = tokio::select! {
        outcome = up(&system, &args) => outcome,
        () = signals.recv() => Ok(()),
    };
    if !system.is_empty() {
        say("\nStopping; the data stays in .data");
    }
    tokio::select! {
        () = system.stop() => {}
        // Asked twice: the watchdog ends what is left, as it would were we killed.
        () = signals.recv() => say("Stopping at once"),
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Starts everything, then keeps it up until something fails.
async fn up(system: &System, args: &Args) -> anyhow::Result<()> {
    ensure!(
        port::is_free(args.port),
        "port {} is taken by another program: stop that one, or choose another by --port",
        args.port
    );

    say("1/4  Starting PostgreSQL and Redis");
    let storage = &Storage::Keep(paths::data());
    let (database, redis) = (settings::given("DATABASE_URL"), settings::given("REDIS_URL"));
    let (database, redis) = tokio::try_join!(
        system.serve(Role::Postgres, "PostgreSQL", source::postgres(database.as_deref(), storage)),
        system.serve(Role::Redis, "Redis", source::redis(redis.as_deref(), storage)),
    )?;

    let later = if args.release { "minutes, too" } else { "seconds" };
    say(format!("2/4  Building the API and the worker; the first build takes minutes, later ones {later}"));
    let (events, ()) = tokio::try_join!(events(system, args.events), build(args.release))?;
    let mut variables = events;
    variables.insert("DATABASE_URL".into(), database.url);
    variables.insert("REDIS_URL".into(), redis.url);

    say("3/4  Applying migrations");
    let migrated = program(args, &variables, "api", "migrate")?.arg("migrate").run().await;
    migrated.context("the database could not be migrated")?;

    say("4/4  Starting the API and the workers");
    start_programs(system, args, &mut variables).await?;
    settings::write(&variables)?;
    print_what_to_try(args);
    system.attend().await
}

/// Starts what carries the events, and gives the variables that tell the programs of it.
async fn events(system: &System, events: Events) -> anyhow::Result<Variables> {
    let storage = &Storage::Keep(paths::data());
    let pairs: Vec<(&str, String)> = match events {
        Events::Local => vec![("EVENT_SYSTEM", "local".into())],
        Events::Rabbitmq => {
            let given = settings::given("AMQP_URL");
            let given = given.as_deref().map(|url| (url, None));
            let rabbitmq = system.serve(Role::Broker, "RabbitMQ", source::rabbitmq(given, storage)).await?;
            vec![("EVENT_SYSTEM", "rabbitmq".into()), ("AMQP_URL", rabbitmq.url)]
        }
        Events::Sqs => {
            let given = settings::given("AWS_ENDPOINT_URL");
            let sqs =
                system.serve(Role::Broker, "LocalStack", source::sqs(given.as_deref(), storage)).await?;
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

async fn build(release: bool) -> anyhow::Result<()> {
    let command =
        cargo::command(&["build", "--bin", "api", "--bin", "worker"]).args(release.then_some("--release"));
    let status = cargo::run(&command).await?;
    ensure!(status.success(), "the API and the worker do not compile, see above");
    Ok(())
}

async fn start_programs(system: &System, args: &Args, variables: &mut Variables) -> anyhow::Result<()> {
    let address = format!("127.0.0.1:{}", metrics_port(args, 0));
    let api = program(args, variables, "api", "api")?
        .arg("serve")
        // On loopback unless told otherwise, because the test login lets everybody in.
        .env("HOST", testbed::setting("HOST").unwrap_or_else(|| "127.0.0.1".into()))
        .env("PORT", args.port)
        .env("METRICS_ADDR", &address);
    let url = format!("http://127.0.0.1:{}", args.port);
    system.run(Role::Api, "The API", api, &format!("{url}/api/v1/health/ready")).await?;
    variables.insert("API_URL".into(), url);
    variables.insert("API_METRICS_ADDR".into(), address);

    let mut addresses = Vec::new();
    for number in 1..=args.workers {
        let name = format!("worker-{number}");
        let address = format!("127.0.0.1:{}", metrics_port(args, number));
        let worker = program(args, variables, "worker", &name)?.arg("run").env("METRICS_ADDR", &address);
        system
            .run(Role::Worker, &format!("Worker {number}"), worker, &format!("http://{address}/health/ready"))
            .await?;
        addresses.push(address);
    }
    variables.insert("WORKER_METRICS_ADDRS".into(), addresses.join(","));
    Ok(())
}

/// Where a program's metrics are: with each API port elsewhere, so that several systems run side by side.
fn metrics_port(args: &Args, worker: u16) -> u16 {
    port::prefer(args.port.checked_add(METRICS_ABOVE_PORT + worker))
}

/// One of the binaries, with a log file of its own that begins anew.
fn program(args: &Args, variables: &Variables, binary: &str, log: &str) -> anyhow::Result<ProgramBuilder> {
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
    say(format!(
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
