//! Running cargo, with its own progress on the terminal.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use anyhow::ensure;
use testbed::paths;
use testbed::process::Launch;

use crate::status::print_status;

/// A cargo command in the workspace.
pub(crate) fn in_workspace(args: &[&str]) -> Launch {
    Launch::on_terminal(program()).folder(paths::workspace()).args(args)
}

/// The cargo that runs this program.
pub(crate) fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs it to its end. When this is dropped before, cargo and its compilers are killed.
pub(crate) async fn run_command(command: &Launch) -> anyhow::Result<ExitStatus> {
    command.spawn()?.wait().await
}

/// Installs the program behind a command of cargo, such as `nextest`, if it is missing, and says so.
pub(crate) async fn install_tool(tool: &str) -> anyhow::Result<()> {
    let found = Command::new(program()).args([tool, "--version"]).current_dir(paths::workspace()).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    let package = format!("cargo-{tool}");
    print_status(format!("{package} is missing, installing it: cargo install --locked {package}"));
    let status = run_command(&in_workspace(&["install", "--locked", &package])).await?;
    ensure!(status.success(), "{package} could not be installed, see above");
    Ok(())
}

/// The folder that holds the binaries of a profile, beside the one of this program.
pub(crate) fn binaries(release: bool) -> anyhow::Result<PathBuf> {
    let mine = paths::binaries()?;
    let profile = if release { "release" } else { "debug" };
    Ok(mine.parent().map_or_else(|| mine.clone(), |target| target.join(profile)))
}
