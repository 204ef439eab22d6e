//! `cargo xtask …`: runs, tests and looks after the whole system on this machine.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod clear_cache;
mod fuzz;
mod lock;
mod needs;
mod postman;
mod prepare;
mod reset_db;
mod say;
mod seed_data;
mod settings;
mod signals;
mod system;
mod test;
mod up;

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
    /// Raise the load until something gives, and see that the system sheds the rest and recovers
    Stress(bench::StressArgs),
    /// Renew the Postman collection in `docs` from the document that the API serves
    Postman,
    /// Renew `.sqlx`, what a build without a database checks its queries against
    Prepare,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(args) => Box::pin(up::run(args)).await,
        Command::Test(args) => Box::pin(test::run(args)).await,
        Command::Fuzz(args) => Box::pin(fuzz::run(args)).await,
        Command::ResetDb => Box::pin(reset_db::run()).await,
        Command::SeedData(args) => Box::pin(seed_data::run(args)).await,
        Command::ClearCache => Box::pin(clear_cache::run()).await,
        Command::Bench(args) => Box::pin(bench::run(needs::for_bench(&args))).await,
        Command::Load(bench::LoadArgs { place, .. }) | Command::Stress(bench::StressArgs { place, .. }) => {
            Box::pin(bench::run(needs::for_load(&place))).await
        }
        Command::Postman => Box::pin(postman::run()).await,
        Command::Prepare => Box::pin(prepare::run()).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
