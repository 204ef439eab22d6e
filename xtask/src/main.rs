//! `cargo xtask …`: runs, tests and looks after the whole system on this machine.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod clear_cache;
mod documents;
mod fuzz;
mod lock;
mod mutate;
mod postman;
mod prepare;
mod requirements;
mod reset_db;
mod seed_data;
mod settings;
mod signals;
mod status;
mod system;
mod test;
mod up;
mod upgrade;

/// Runs, tests and looks after the order system on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the whole system; Ctrl-C stops it and keeps the data
    Up(up::Args),
    /// Start what the tests need, run them, stop it
    Test(test::Args),
    /// Feed every parser of outside input with what a fuzzer makes up, from the corpus in fuzz/corpus
    Fuzz(fuzz::Args),
    /// Empty the database and the cache of the running system
    ResetDb,
    /// Create orders in the running system
    SeedData(seed_data::Args),
    /// Forget all cached orders of the running system
    ClearCache,
    /// Measure how fast the system is against references, and write target/bench/report.html and report.json
    Bench(bench::BenchArgs),
    /// Put open-loop load of a realistic mix on a system, and check its history
    Load(bench::LoadArgs),
    /// Raise the load until something fails, and see that the system sheds the rest and recovers
    Stress(bench::StressArgs),
    /// Upgrade from an older revision under load, go back, and forward again, and compare everything that was answered
    UpgradeFrom(upgrade::Args),
    /// Take out what keeps tenants apart, one condition at a time, and demand that a test notices; takes hours
    Mutate(mutate::Args),
    /// Renew the generated files in `docs`: the descriptions of the API and its events, and the Postman collection
    #[command(alias = "postman")]
    Documents,
    /// Renew `.sqlx`, what a build without a database checks its queries against
    Prepare(prepare::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(args) => Box::pin(up::run_up(args)).await,
        Command::Test(args) => Box::pin(test::run_tests(args)).await,
        Command::Fuzz(args) => Box::pin(fuzz::run_fuzzing(args)).await,
        Command::ResetDb => Box::pin(reset_db::reset_db()).await,
        Command::SeedData(args) => Box::pin(seed_data::seed_data(args)).await,
        Command::ClearCache => Box::pin(clear_cache::clear_cache()).await,
        Command::Bench(args) => {
            Box::pin(bench::run_bench_program(requirements::install_for_bench(&args))).await
        }
        Command::Load(bench::LoadArgs { place, .. }) | Command::Stress(bench::StressArgs { place, .. }) => {
            Box::pin(bench::run_bench_program(requirements::install_for_load(&place))).await
        }
        Command::UpgradeFrom(args) => Box::pin(upgrade::run_upgrade(args)).await,
        Command::Mutate(args) => Box::pin(mutate::run_mutations(args)).await,
        Command::Documents => Box::pin(documents::write_documents()).await,
        Command::Prepare(args) => Box::pin(prepare::run_prepare(args)).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
