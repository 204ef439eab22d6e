//! Programs from Python's package index, each in a virtual environment of its own.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::install::{self, Need, PYTHON_TITLE};
use crate::paths;
use crate::process::Launch;

/// Returns the folder of a virtual environment with the packages that `requirements` pins. Makes it, and installs Python, if
/// they are missing. Errors end with `otherwise`: what to do without this environment.
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
    // An environment of a Python that has been replaced by a newer one finds its packages no more.
    if environment.join("complete").is_file()
        && install::runs_python(&environment.join("bin/python"), "import pip")
    {
        return Ok(environment);
    }

    let provided = install::provide(&[Need::Python]).await;
    provided.with_context(|| format!("{title} needs {PYTHON_TITLE}; or {otherwise}"))?;
    let python = install::find_python().context("there is no Python")?;
    let file = requirements.strip_prefix(paths::workspace()).unwrap_or(requirements).display();
    println!("  {title} is missing, installing it: {python} -m venv, pip install -r {file}");
    let log = paths::data().join("logs/install.log");
    let _absent = fs::remove_dir_all(&environment);
    let steps = [
        Launch::new(python, &log).args(["-m", "venv"]).arg(&environment),
        pip(&environment, &log).arg("-r").arg(requirements),
    ];
    for step in steps {
        step.run().await.with_context(|| {
            format!("{title} could not be installed (see {}); or {otherwise}", log.display())
        })?;
    }
    fs::write(environment.join("complete"), "")?;
    Ok(environment)
}

fn pip(environment: &Path, log: &Path) -> Launch {
    Launch::new(environment.join("bin/python"), log).args(["-m", "pip", "install", "--quiet"])
}
