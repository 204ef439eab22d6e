//! Runs the tool in a folder of the test's own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use testbed::process::{Launch, Process};
use testbed::{eventually_within, paths};

/// A cold start of every server on a busy machine.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// A folder that looks like the workspace to the tool, with its own `.data`. It is removed with this value.
pub(crate) struct Workspace(PathBuf);

/// A running `cargo xtask …`.
pub(crate) struct Tool {
    process: Process,
    log: PathBuf,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        let folder = paths::temporary("workspace").unwrap();
        fs::write(folder.join("Cargo.lock"), "").unwrap();
        symlink(paths::workspace().join("migrations"), folder.join("migrations")).unwrap();
        Self(folder)
    }

    /// Starts the tool. What it would build has been built with this test, so its cargo does nothing.
    pub(crate) fn start(&self, args: &[&str]) -> Tool {
        self.launch("true", args)
    }

    /// The same with a cargo that builds without an end.
    pub(crate) fn start_building_forever(&self, args: &[&str]) -> Tool {
        let cargo = self.script("cargo", "sleep 600");
        self.launch(&cargo, args)
    }

    /// Writes an executable script, and returns its path.
    pub(crate) fn script(&self, name: &str, lines: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A file or folder in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Has Redis find something in place of its data.
    pub(crate) fn spoil_redis(&self) {
        fs::write(self.0.join(".data/redis/appendonlydir/appendonly.aof.manifest"), "spoilt\n").unwrap();
    }

    /// The same with another cargo.
    pub(crate) fn launch(&self, cargo: &str, args: &[&str]) -> Tool {
        self.launch_with(cargo, args, &[])
    }

    /// The same with further variables.
    pub(crate) fn launch_with(&self, cargo: &str, args: &[&str], variables: &[(&str, &str)]) -> Tool {
        let log = self.0.join(format!("log-{}", testbed::free_port()));
        let launch = Launch::new(env!("CARGO_BIN_EXE_xtask"), &log)
            .clear_env()
            .args(args)
            .env("CARGO", cargo)
            .env("CARGO_MANIFEST_DIR", &self.0)
            .folder(&self.0);
        let launch = variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        Tool { process: launch.spawn().unwrap(), log }
    }

    /// A variable of `.data/env`.
    pub(crate) fn env(&self, name: &str) -> String {
        let text = fs::read_to_string(self.0.join(".data/env")).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} is in:\n{text}")).to_owned()
    }

    /// The ports of the servers that were started here.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let read = |server| fs::read_to_string(self.0.join(".data").join(server).join("port")).unwrap();
        ["postgres", "redis"].into_iter().map(|server| read(server).parse().unwrap()).collect()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

impl Tool {
    /// Waits until it has printed this.
    pub(crate) async fn says(&mut self, text: &str) {
        let what = format!("it says {text:?}");
        let process = &mut self.process;
        eventually_within(START_TIMEOUT, &what, async || {
            let log = process.log();
            let ended = process.ended().unwrap();
            assert!(ended.is_none() || log.contains(text), "it ended without saying {text:?}:\n{log}");
            log.contains(text)
        })
        .await;
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGTERM, and all that it has printed when it has ended well.
    pub(crate) async fn stop(self) -> String {
        let status = self.process.terminate().await.unwrap();
        let log = fs::read_to_string(self.log).unwrap();
        assert!(status.success(), "{status}:\n{log}");
        log
    }

    /// Its end, and what it has printed.
    pub(crate) async fn wait(mut self) -> (ExitStatus, String) {
        let status = self.process.wait().await.unwrap();
        (status, self.process.log())
    }
}
