//! `bench`: see `cargo xtask bench --help`, `load --help` and `stress --help`.

use std::process::ExitCode;

use bench::cli::{self, Cli};
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run_command(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
