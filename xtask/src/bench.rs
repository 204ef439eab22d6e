//! `cargo xtask bench`, `load` and `stress`: done by the program `bench`, which is built in release together with what it
//! measures.

use std::process::ExitCode;

use testbed::process::Launch;

use crate::cargo;

#[path = "../../bench/src/arguments.rs"]
#[expect(unreachable_pub, reason = "in the crate that it belongs to, it is reachable")]
mod arguments;

pub(crate) use arguments::{BenchArgs, Choice, LoadArgs, Place, StressArgs};

/// Builds it once `needs` are met, and hands it the arguments of this program as they are.
pub(crate) async fn run(needs: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    needs.await?;
    println!("building in release, which takes minutes the first time");
    let build = cargo::command(&["build", "--release", "--bin", "api", "--bin", "worker", "--bin", "bench"]);
    if !cargo::run(&build).await?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let program = Launch::on_terminal(cargo::binaries(true)?.join("bench")).args(std::env::args_os().skip(1));
    let status = cargo::run(&program).await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
