//! What to start, and how.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::{Process, Stop, last_line};
use crate::watchdog;

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    clear_env: bool,
    folder: PathBuf,
    log: Option<PathBuf>,
    user: Option<User>,
    stop: Stop,
}

/// Another user to run as, where we are root.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

impl Launch {
    /// A program, found by `PATH` if it is only a name; its output is appended to `log`.
    pub fn new(program: impl AsRef<OsStr>, log: impl Into<PathBuf>) -> Self {
        Self { log: Some(log.into()), ..Self::on_terminal(program) }
    }

    /// A program whose output goes where ours goes.
    pub fn on_terminal(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            clear_env: false,
            folder: "/".into(),
            log: None,
            user: None,
            stop: Stop::Term,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Inherits no variable but those without which no program works.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Sets the working directory, else `/`.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Runs as another user.
    #[must_use]
    pub fn user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// Sets the signal that stops it, else SIGTERM.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// The last line that says something in its output.
    pub fn last_line(&self) -> String {
        last_line(self.log.as_deref())
    }

    /// The file with its output, for messages.
    pub fn log_file(&self) -> String {
        self.log.as_deref().map_or_else(|| "above".into(), |log| log.display().to_string())
    }

    /// Starts it.
    pub fn spawn(&self) -> anyhow::Result<Process> {
        let name =
            Path::new(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        // It waits for a line before it becomes the program: were we killed before the watchdog knows of it, it ends.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"read -r _ && exec "$@" </dev/null"#, "sh"])
            .arg(&self.program)
            .args(&self.args);
        self.prepare(&mut command)?;
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take();
        let process = Process { child, name, log: self.log.clone(), stop: self.stop };
        watchdog::register(process.id(), self.stop.name())?;
        // It may have ended already, which is seen when its readiness is waited for.
        let _ended = stdin.context("no pipe")?.write_all(b"go\n");
        Ok(process)
    }

    /// Runs it to its end, with the same output file, and fails with the last line of its output.
    pub async fn run(&self) -> anyhow::Result<()> {
        let mut process = self.spawn()?;
        let status = process.wait().await?;
        anyhow::ensure!(status.success(), "{} failed: {}", process.name, self.last_line());
        Ok(())
    }

    fn prepare(&self, command: &mut Command) -> anyhow::Result<()> {
        if self.clear_env {
            command.env_clear();
            let kept =
                ["PATH", "HOME", "USER", "TMPDIR", "LANG", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR"];
            command.envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        }
        command.envs(&self.env).current_dir(&self.folder);
        if let Some(path) = &self.log {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            }
            let log = File::options().create(true).append(true).open(path);
            let log = log.with_context(|| format!("cannot write {}", path.display()))?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        Ok(())
    }
}
