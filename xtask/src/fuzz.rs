//! `cargo xtask fuzz`.

use std::collections::VecDeque;
use std::fs;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use testbed::native::Storage;
use testbed::process::Launch;
use testbed::{paths, source};

use crate::status::print_status;
use crate::system::{self, Role, System};
use crate::{cargo, requirements};

/// What is fuzzed: one file each in `fuzz/fuzz_targets`.
const TARGETS: [&str; 7] = ["bodies", "files", "queries", "headers", "tokens", "events", CACHE];
/// The one that writes to Redis.
const CACHE: &str = "cache";
/// Without the sanitizers, which need a nightly compiler and look for what this workspace, without unsafe code, cannot
/// do wrong.
const BUILD: [&str; 3] = ["--dev", "--sanitizer", "none"];
/// The end of a log that is shown where something was found.
const LINES_SHOWN: usize = 40;

/// Options of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fuzz only this; else everything
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    target: Option<String>,
    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

pub(crate) async fn run_fuzzing(args: Args) -> anyhow::Result<ExitCode> {
    system::with_temporary_servers(async |system| fuzz_targets(system, &args).await).await
}

async fn fuzz_targets(system: &System, args: &Args) -> anyhow::Result<ExitCode> {
    requirements::install_for_fuzzing().await?;
    cargo::install_tool("fuzz").await?;
    print_status("Building the fuzz targets; the first build takes minutes.");
    // The macros of the dependencies are there already.
    let folder = paths::workspace().join("target");
    let build = cargo::in_workspace(&["fuzz", "build"])
        .args(BUILD)
        .arg("--target-dir")
        .arg(&folder)
        .args(&args.target);
    ensure!(cargo::run_command(&build).await?.success(), "the fuzz targets do not compile, see above");

    let queue: VecDeque<&str> = args.target.as_deref().map_or(TARGETS.into(), |target| [target].into());
    // Always one of its own: the target empties it again and again.
    let redis = if queue.contains(&CACHE) {
        let server = source::redis(None, &Storage::Throwaway);
        Some(system.start_server(Role::Redis, "Redis", server).await?.url)
    } else {
        None
    };
    let found = Mutex::new(0);
    let queue = Mutex::new(queue);
    let fuzz_queued = async || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(target) = next else { return anyhow::Ok(()) };
            if let Err(error) = fuzz_target(target, args.seconds, redis.as_deref()).await {
                print_status(format!("{target}: {error:#}"));
                *found.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
        }
    };
    // Two side by side.
    tokio::try_join!(fuzz_queued(), fuzz_queued())?;
    match *found.lock().unwrap_or_else(PoisonError::into_inner) {
        0 => Ok(ExitCode::SUCCESS),
        targets => bail!("{targets} of the fuzz targets found something, see above"),
    }
}

/// Runs one target from its corpus. What it adds to the corpus goes into the target folder, not into git.
async fn fuzz_target(target: &str, seconds: u32, redis: Option<&str>) -> anyhow::Result<()> {
    let fresh = paths::workspace().join("target/fuzz").join(target);
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let log = paths::data().join("logs").join(format!("fuzz-{target}.log"));
    let _absent = fs::remove_file(&log);
    let run = Launch::new(cargo::program(), &log)
        .folder(paths::workspace())
        .args(["fuzz", "run"])
        .args(BUILD)
        .arg("--target-dir")
        .arg(paths::workspace().join("target"))
        .arg(target)
        .arg(fresh)
        .arg(paths::workspace().join("fuzz/corpus").join(target))
        .args(["--", "-rss_limit_mb=1024", "-timeout=20", "-max_len=4096"])
        .arg(format!("-max_total_time={seconds}"))
        .env("REDIS_URL", redis.unwrap_or_default());
    let done = run.run().await;
    let output = fs::read_to_string(&log).unwrap_or_default();
    if done.is_err() {
        let lines: Vec<&str> = output.lines().collect();
        let end = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        bail!("something was found, the whole log is {}\n{}", log.display(), end.join("\n"));
    }
    let summary = output.lines().rfind(|line| line.contains("DONE")).unwrap_or("nothing was run");
    print_status(format!("{target}: nothing found. {summary}"));
    Ok(())
}
