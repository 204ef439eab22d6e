//! Running cargo, with its own progress on the terminal.

use std::path::PathBuf;
use std::process::ExitStatus;

use testbed::paths;
use testbed::process::Launch;

/// A cargo command in the workspace.
pub(crate) fn command(args: &[&str]) -> Launch {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Launch::on_terminal(cargo).folder(paths::workspace()).args(args)
}

/// Runs it to its end. When this is dropped before, cargo and its compilers are killed.
pub(crate) async fn run(command: &Launch) -> anyhow::Result<ExitStatus> {
    command.spawn()?.wait().await
}

/// The folder that holds the binaries of a profile, beside the one of this program.
pub(crate) fn binaries(release: bool) -> anyhow::Result<PathBuf> {
    let mine = paths::binaries()?;
    let profile = if release { "release" } else { "debug" };
    Ok(mine.parent().map_or_else(|| mine.clone(), |target| target.join(profile)))
}
