//! Programs from Python's package index, each in a virtual environment of its own.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::process::Launch;
use crate::{install, paths};

/// The Python versions whose packages are pinned in the `requirements.txt` files, the tried one first.
const PYTHONS: &[&str] = &["python3.11", "python3.12", "python3.10", "python3"];

/// The folder of the virtual environment with the packages that `requirements` pins, which is made first where it is
/// missing. `otherwise` says in an error what to do in place of installing Python.
pub async fn environment(title: &str, requirements: &Path, otherwise: &str) -> anyhow::Result<PathBuf> {
    let pinned = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let mut hasher = DefaultHasher::new();
    pinned.hash(&mut hasher);
    // Named after what is in it, so that changed pins make a new one.
    let folder = paths::data().join(title.to_lowercase());
    let environment = folder.join(format!("venv-{:016x}", hasher.finish()));
    fs::create_dir_all(&folder)?;
    // Two runs at once would make the same environment; the lock ends with the process that holds it.
    let lock = File::create(folder.join("lock"))?;
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if environment.join("complete").is_file() {
        return Ok(environment);
    }

    let python = PYTHONS.iter().find(|python| works(python)).with_context(|| {
        format!(
            "{title} needs Python 3.10 to 3.12 with venv: install it (Debian: apt-get install python3-venv), or {otherwise}"
        )
    })?;
    let file = requirements.strip_prefix(paths::workspace()).unwrap_or(requirements).display();
    println!("  {title} is missing, installing it: {python} -m venv, pip install -r {file}");
    let log = paths::data().join("logs/install.log");
    let _absent = fs::remove_dir_all(&environment);
    let steps = [
        Launch::new(python, &log).args(["-m", "venv"]).arg(&environment),
        pip(&environment, &log).arg("-r").arg(requirements),
    ];
    for step in steps {
        step.run()
            .await
            .with_context(|| format!("{title} could not be installed (see {})", log.display()))?;
    }
    fs::write(environment.join("complete"), "")?;
    Ok(environment)
}

fn pip(environment: &Path, log: &Path) -> Launch {
    Launch::new(environment.join("bin/python"), log).args(["-m", "pip", "install", "--quiet"])
}

/// Whether this Python is there and can make virtual environments.
fn works(python: &str) -> bool {
    install::exists(python)
        && Command::new(python)
            .args(["-c", "import venv, ensurepip"])
            .output()
            .is_ok_and(|out| out.status.success())
}
