//! Redis as a child process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::{Probe, Server, Storage, start_on_a_free_port};
use crate::install::Package;
use crate::process::Launch;

/// The package of the server.
pub const PACKAGE: Package = Package {
    title: "Redis",
    binary: "redis-server",
    folders: &["/opt/homebrew/opt/redis/bin", "/usr/local/opt/redis/bin"],
    least: 7,
    apt: "redis-server",
    brew: "redis",
    variable: "REDIS_URL",
};

/// With a memory limit, what would expire first goes first, and the stream never does.
pub(crate) const EVICTION: [&str; 4] = ["--maxmemory-policy", "volatile-ttl", "--save", ""];

/// Starts a Redis server, empty or with the data of its last start.
pub async fn redis(storage: &Storage) -> anyhow::Result<Server> {
    let append_only = if storage.is_kept() { "yes" } else { "no" };
    start(storage, &["--appendonly", append_only]).await
}

/// Starts a Redis server in a temporary folder that answers a write once it is on disk, and finds it there when it is
/// started again.
pub async fn durable_redis() -> anyhow::Result<Server> {
    start(&Storage::Throwaway, &["--appendonly", "yes", "--appendfsync", "always"]).await
}

async fn start(storage: &Storage, persistence: &[&str]) -> anyhow::Result<Server> {
    // One database for each test; an unused one costs a few hundred bytes.
    let arguments = [&["--databases", "4096"], &EVICTION[..], persistence].concat();
    start_redis_in(&storage.folder("redis")?, "Redis", "", &arguments).await
}

/// Starts `redis-server` in `folder`, with a configuration file that begins as `config` and that the server itself
/// rewrites later, and with these arguments.
pub(crate) async fn start_redis_in(
    folder: &Path,
    title: &'static str,
    config: &str,
    arguments: &[&str],
) -> anyhow::Result<Server> {
    let binary = PACKAGE.binary().await?;
    let (file, log) = (folder.join("redis.conf"), folder.join("log"));
    fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    start_on_a_free_port(folder, |port| Server {
        title,
        launch: Launch::new(&binary, &log)
            .arg(&file)
            .args(arguments)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .arg("--dir")
            .arg(folder)
            .folder(folder),
        url: format!("redis://127.0.0.1:{port}/0"),
        probe: Probe::Redis(format!("redis://127.0.0.1:{port}/0")),
        patience: Duration::from_mins(1),
        process: None.into(),
    })
    .await
}
