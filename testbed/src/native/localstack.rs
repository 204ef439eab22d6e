//! LocalStack's SQS as a child process, without Docker: from Python's package index, in a virtual environment of its own.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::{Probe, Server, Storage, start_on_a_free_port};
use crate::process::Launch;
use crate::{install, paths};

/// The Python versions whose packages are pinned in `localstack/requirements.txt`, the tried one first.
const PYTHONS: &[&str] = &["python3.11", "python3.12", "python3.10", "python3"];

/// Starts a LocalStack that serves SQS. The URL is its endpoint. Its queues are gone with it: this edition keeps
/// nothing.
pub async fn localstack(storage: &Storage) -> anyhow::Result<Server> {
    let environment = prepare_localstack().await?;
    let folder = storage.folder("localstack")?;
    start_on_a_free_port(&folder, |port| {
        let url = format!("http://127.0.0.1:{port}");
        Server {
            title: "LocalStack",
            launch: Launch::new(environment.join("bin/python"), folder.join("log"))
                .args(["-m", "localstack.runtime.main"])
                .folder(&folder)
                .env("SERVICES", "sqs")
                .env("EAGER_SERVICE_LOADING", "1")
                .env("GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
                // Its default server takes the port of that setting and listens on every address.
                .env("GATEWAY_SERVER", "hypercorn")
                .env("DISABLE_EVENTS", "1")
                .env("SKIP_SSL_CERT_DOWNLOAD", "1")
                // Its own name server would want port 53.
                .env("DNS_ADDRESS", "0")
                .env("FILESYSTEM_ROOT", &folder)
                .env("TMPDIR", &folder),
            probe: Probe::Http(format!("{url}/_localstack/health")),
            url,
            patience: Duration::from_mins(2),
            process: None.into(),
        }
    })
    .await
}

/// The virtual environment with LocalStack, which is made first where it is missing. That takes a minute or two.
pub async fn prepare_localstack() -> anyhow::Result<PathBuf> {
    let requirements = paths::workspace().join("localstack/requirements.txt");
    let pinned =
        fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let mut hasher = DefaultHasher::new();
    pinned.hash(&mut hasher);
    // Named after what is in it, so that changed pins make a new one.
    let folder = paths::data().join("localstack");
    let environment = folder.join(format!("venv-{:016x}", hasher.finish()));
    fs::create_dir_all(&folder)?;
    // Two runs at once would make the same environment; the lock ends with the process that holds it.
    let lock = File::create(folder.join("lock"))?;
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if environment.join("complete").is_file() {
        return Ok(environment);
    }

    let python = PYTHONS.iter().find(|python| works(python)).context(
        "LocalStack needs Python 3.10 to 3.12 with venv: install it (Debian: apt-get install python3-venv), or set \
         TESTBED_SQS_ENDPOINT to an SQS endpoint that runs",
    )?;
    println!(
        "  LocalStack is missing, installing it: {python} -m venv, pip install -r localstack/requirements.txt"
    );
    let log = paths::data().join("logs/install.log");
    let _absent = fs::remove_dir_all(&environment);
    let steps = [
        Launch::new(python, &log).args(["-m", "venv"]).arg(&environment),
        pip(&environment, &log).arg("-r").arg(&requirements),
    ];
    for step in steps {
        step.run()
            .await
            .with_context(|| format!("LocalStack could not be installed (see {})", log.display()))?;
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
