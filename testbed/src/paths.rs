//! Where things live on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace() -> PathBuf {
    // Set at run time by `cargo run` and `cargo test`; at compile time for a binary that is started by hand.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().find(|folder| folder.join("Cargo.lock").is_file()).unwrap_or(&here).to_path_buf()
}

/// `.data/` in the workspace: everything that `cargo xtask` keeps.
pub fn data() -> PathBuf {
    workspace().join(".data")
}

/// The folder with the binaries of the running build: where `api` and `worker` lie beside the test or `xtask`.
pub fn binaries() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("the path of this program is unknown")?;
    let folder = me.parent().context("this program lies in no folder")?;
    // Test binaries lie one deeper, in `deps`.
    Ok(if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder).to_path_buf()
    } else {
        folder.to_path_buf()
    })
}

/// A new, empty folder for what need not outlive this process. It can be reached by every user of the machine,
/// because PostgreSQL may have to run as another one.
pub fn temporary(name: &str) -> anyhow::Result<PathBuf> {
    let parent = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()]
        .into_iter()
        .find(|folder| folder.is_dir() && reachable_by_all(folder))
        .context("there is no temporary folder that every user can reach")?;
    let folder = parent.join(format!("orders-{name}-{}", uuid::Uuid::now_v7().simple()));
    fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
    Ok(folder)
}

/// Whether a process of any user may pass through this folder and all those above it.
pub fn reachable_by_all(folder: &Path) -> bool {
    folder.canonicalize().is_ok_and(|folder| {
        folder
            .ancestors()
            .all(|part| fs::metadata(part).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
    })
}
