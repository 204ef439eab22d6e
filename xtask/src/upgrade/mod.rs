//! `cargo xtask upgrade-from`: an upgrade, the way back, and the way forward again, under load. What the programs themselves do
//! is not here.

mod balancer;
mod checks;
mod faults;
mod fleet;
mod load;
mod programs;
mod shop;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use testbed::native::Storage;
use testbed::source;

use crate::requirements;
use crate::settings::Variables;
use crate::status::print_status;
use crate::system::{self, Role, System};
use crate::up::{self, Events};
use balancer::Balancer;
use checks::Checks;
use faults::Faults;
use fleet::Fleet;
use load::Load;

/// Replicas of the API, and workers.
const REPLICAS: usize = 2;

/// Options of `upgrade-from`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The revision to upgrade from, as git knows it: a tag, a branch, a commit
    #[arg(value_name = "REV", required_unless_present = "programs")]
    revision: Option<String>,
    /// Upgrade from the `api` and the `worker` in this folder; nothing is built for it
    #[arg(long, value_name = "FOLDER", conflicts_with = "revision")]
    programs: Option<PathBuf>,
    /// What carries the events
    #[arg(long, value_enum, default_value_t = Events::Local)]
    broker: Events,
    /// The profile of cargo that both are built with
    #[arg(long, value_name = "NAME", default_value = "dev")]
    profile: String,
    /// Seconds under load between two steps
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Customers who place orders
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
}

pub(crate) async fn run_upgrade(args: Args) -> anyhow::Result<ExitCode> {
    requirements::install_for_upgrade(args.broker).await?;
    system::with_temporary_servers(async |system| Box::pin(upgrade(system, &args)).await).await
}

async fn upgrade(system: &System, args: &Args) -> anyhow::Result<ExitCode> {
    let (old, today) = programs::prepare(args).await?;
    print_status("Starting the servers");
    let variables = Box::pin(start_servers(system, args.broker)).await?;
    let database_url = variables.get("DATABASE_URL").context("no DATABASE_URL")?.clone();

    let (balancer, faults) = (Arc::new(Balancer::default()), Arc::new(Faults::default()));
    let mut fleet = Fleet::new(variables, Arc::clone(&balancer), Arc::clone(&faults))?;
    let step = Duration::from_secs(args.seconds);

    faults.begin("old system");
    fleet.migrate(&old).await?;
    fleet.start(&old, REPLICAS).await?;
    let checks = Checks::connect(&database_url, Arc::clone(&faults)).await?;
    let load = Load::start(args.clients, &balancer, &faults);
    tokio::time::sleep(step).await;
    checks.wait_for_history().await?;
    load.print_progress();

    for (stage, programs) in [("forward", &today), ("back", &old), ("forward again", &today)] {
        faults.begin(stage);
        fleet.migrate(programs).await?;
        // Consumers learn of a new kind of event before producers send it; on the way back the other way round. Half of each
        // first, so that old and new programs meet in every combination.
        for number in 0..REPLICAS {
            fleet.replace_worker(number, programs).await?;
            tokio::time::sleep(step).await;
            fleet.replace_api(number, programs).await?;
            tokio::time::sleep(step).await;
        }
        checks.wait_for_history().await?;
        load.print_progress();
    }

    faults.begin("afterwards");
    let shops = load.stop().await?;
    print_status("Comparing what was answered with what is there");
    checks.wait_for_history().await?;
    checks.compare_orders(shops).await?;
    checks.count_dead_letters().await?;
    for programs in [&today, &old] {
        fleet.verify(programs).await;
    }
    fleet.stop().await?;
    Ok(faults.print_summary(&old.title))
}

/// PostgreSQL, Redis and the broker, and the variables by which the programs find them.
async fn start_servers(system: &System, broker: Events) -> anyhow::Result<Variables> {
    let storage = &Storage::Throwaway;
    let (database, redis, mut variables) = tokio::try_join!(
        system.start_server(Role::Postgres, "PostgreSQL", source::postgres(None, storage)),
        system.start_server(Role::Redis, "Redis", source::redis(None, storage)),
        up::start_broker(system, broker, storage),
    )?;
    variables.insert("DATABASE_URL".into(), database.url);
    variables.insert("REDIS_URL".into(), redis.url);
    Ok(variables)
}
