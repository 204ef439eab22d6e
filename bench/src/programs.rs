//! The measured programs as processes: started as in production, with JSON logs at the default level into a file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use testbed::process::{Launch, Process};
use testbed::{free_port, http, paths};

use crate::tokens;

/// A busy machine is given time.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two looks whether a program is ready: a fraction of what a start takes.
const LOOK: Duration = Duration::from_millis(2);

/// What both programs are told.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `DATABASE_URL`
    pub database_url: String,
    /// `REDIS_URL`
    pub redis_url: String,
    /// Whatever else.
    pub more: Vec<(&'static str, String)>,
}

/// A running API or worker.
#[derive(Debug)]
pub struct Running {
    process: Process,
    /// `http://127.0.0.1:PORT`: the API's public address, the worker's operators' address.
    pub url: String,
    /// From the start of the process to its being ready.
    pub took: Duration,
}

/// Starts an API and waits until it is ready.
pub async fn api(environment: &Environment, folder: &Path) -> anyhow::Result<Running> {
    let (port, metrics) = (free_port(), free_port());
    let launch = launch("api", environment, folder)?
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .env("METRICS_ADDR", format!("127.0.0.1:{metrics}"))
        .env("JWT_SECRET", tokens::SECRET);
    start(&launch, format!("http://127.0.0.1:{port}"), "/api/v1/health/ready").await
}

/// Starts a worker and waits until it is ready.
pub async fn worker(environment: &Environment, folder: &Path) -> anyhow::Result<Running> {
    let metrics = free_port();
    let launch = launch("worker", environment, folder)?.env("METRICS_ADDR", format!("127.0.0.1:{metrics}"));
    start(&launch, format!("http://127.0.0.1:{metrics}"), "/health/ready").await
}

/// Starts this program itself with a hidden sub-command that listens on `port`, and waits until it does.
pub async fn this(arguments: &[&str], port: u16, folder: &Path) -> anyhow::Result<Running> {
    let me = std::env::current_exe().context("the path of this program is unknown")?;
    let launch = isolated(me, "bench.log", folder).args(arguments);
    start(&launch, format!("http://127.0.0.1:{port}"), "/").await
}

/// Starts this program itself with a hidden sub-command and an environment, with no readiness to wait for.
pub fn start_part(arguments: &[&str], environment: &Environment, folder: &Path) -> anyhow::Result<Process> {
    let me = std::env::current_exe().context("the path of this program is unknown")?;
    with(isolated(me, "part.log", folder).args(arguments), environment).spawn()
}

impl Running {
    /// The process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory in bytes, now.
    pub fn resident(&self) -> anyhow::Result<u64> {
        resident(self.process.id())
    }

    /// Whether it has ended by itself, which it must not.
    pub fn ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    /// Has it do nothing until [`Self::resume`].
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Stops it in good order.
    pub async fn stop(self) -> anyhow::Result<()> {
        let name = self.process.name().to_owned();
        let status = self.process.terminate().await?;
        if !status.success() {
            bail!("{name} ended with {status}");
        }
        Ok(())
    }
}

fn launch(name: &str, environment: &Environment, folder: &Path) -> anyhow::Result<Launch> {
    let binary = paths::binaries()?.join(name);
    anyhow::ensure!(binary.is_file(), "{} has not been built: run `cargo build -p {name}`", binary.display());
    Ok(with(isolated(binary, &format!("{name}.log"), folder), environment))
}

/// A program with none of this environment, and the same number of threads for what is measured and what it is compared
/// with.
fn isolated(binary: PathBuf, log: &str, folder: &Path) -> Launch {
    Launch::new(binary, folder.join(log))
        .folder(folder)
        .clear_env()
        .env("TOKIO_WORKER_THREADS", testbed::threads_beside_servers())
}

fn with(launch: Launch, environment: &Environment) -> Launch {
    let launch =
        launch.env("DATABASE_URL", &environment.database_url).env("REDIS_URL", &environment.redis_url);
    environment.more.iter().fold(launch, |launch, (name, value)| launch.env(name, value))
}

async fn start(launch: &Launch, url: String, ready: &str) -> anyhow::Result<Running> {
    let begun = Instant::now();
    let mut process = launch.spawn()?;
    let probe = format!("{url}{ready}");
    loop {
        let seen = match http::get(&probe).await {
            Ok(response) if response.is_success() => {
                return Ok(Running { process, url, took: begun.elapsed() });
            }
            Ok(response) => response.body,
            Err(error) => format!("{error:#}"),
        };
        if let Some(status) = process.ended()? {
            bail!("{} ended at its start ({status}): {}", process.name(), process.log());
        }
        if begun.elapsed() > START_TIMEOUT {
            bail!("{} was not ready within {START_TIMEOUT:?}: {seen}", process.name());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Resident memory of a process in bytes: from `/proc` if there is one, else from `ps`.
pub fn resident(process: u32) -> anyhow::Result<u64> {
    let kib = if let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) {
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has ended")?;
        line.trim().trim_end_matches(" kB").parse::<u64>()?
    } else {
        let output = std::process::Command::new("ps")
            .args(["-o", "rss=", "-p", &process.to_string()])
            .output()
            .context("cannot run ps")?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().context("the process has ended")?
    };
    Ok(kib * 1024)
}
