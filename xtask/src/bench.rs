//! `cargo xtask bench`, `load` and `stress`: run by the program `bench`, which is built in release together with what it
//! measures.

use std::process::ExitCode;

use testbed::process::Launch;

use crate::cargo;

#[path = "../../bench/src/arguments.rs"]
#[expect(unreachable_pub, reason = "in the crate that it belongs to, it is reachable")]
mod arguments;

pub(crate) use arguments::{BenchArgs, Choice, LoadArgs, Place, StressArgs};

/// Builds the program once `requirements` are met, and passes it the arguments of this one.
pub(crate) async fn run_bench_program(
    requirements: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<ExitCode> {
    requirements.await?;
    println!("building in release, which takes minutes the first time");
    let build =
        cargo::in_workspace(&["build", "--release", "--bin", "api", "--bin", "worker", "--bin", "bench"]);
    if !cargo::run_command(&build).await?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let program = Launch::on_terminal(cargo::binaries(true)?.join("bench")).args(std::env::args_os().skip(1));
    let status = cargo::run_command(&program).await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
