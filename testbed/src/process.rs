//! Child processes: started so that none is left behind, stopped in good order, with their output in a file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::watchdog;

/// A process that does not react to its stop signal within this time is killed.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

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

/// The signal that stops a process in good order.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// SIGTERM, as most want it.
    Term,
    /// SIGINT: `PostgreSQL` ends its sessions and writes a checkpoint.
    Int,
    /// SIGQUIT: `PostgreSQL` ends at once, for data that nobody keeps.
    Quit,
}

/// A running child process, in a process group of its own. It is killed with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: Option<PathBuf>,
    stop: Stop,
}

impl Launch {
    /// A program, found by `PATH` where it is only a name; its output is appended to `log`.
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

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
            Self::Quit => Signal::QUIT,
        }
    }
}

impl Process {
    /// The process id, which is that of its group too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The name of its program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        text(self.log.as_deref())
    }

    /// The last line that says something in its output.
    pub fn last_line(&self) -> String {
        last_line(self.log.as_deref())
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends its stop signal and waits; kills it when it does not end within half a minute.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(self.stop.signal());
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::bail!("{} did not stop within {PATIENCE:?} and was killed", self.name);
    }

    /// SIGKILL to it and all that it started, at once, as a power cut would. Waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// SIGSTOP to it and all that it started: connections stay open, and nothing answers.
    pub fn pause(&self) {
        // From the top, so that a stopped parent starts no further child; twice, for one that it had just started.
        for _ in 0..2 {
            self.signal_tree(Signal::STOP);
        }
    }

    /// SIGCONT after [`Self::pause`].
    pub fn resume(&self) {
        self.signal_tree(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = pid(self.id()) {
            // It may just have ended.
            let _gone = kill_process(pid, signal);
        }
    }

    /// To every descendant, because the sessions of PostgreSQL are process groups of their own.
    fn signal_tree(&self, signal: Signal) {
        self.signal(signal);
        for descendant in descendants(self.id()).into_iter().filter_map(pid) {
            let _gone = kill_process(descendant, signal);
        }
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal_tree(Signal::KILL);
            if let Some(group) = pid(self.id()) {
                let _gone = kill_process_group(group, Signal::KILL);
            }
            let _reaped = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        watchdog::forget(self.id());
    }
}

fn text(log: Option<&Path>) -> String {
    let bytes = log.and_then(|log| fs::read(log).ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_line(log: Option<&Path>) -> String {
    let text = text(log);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it wrote nothing").trim().to_owned()
}

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// The processes below this one, parents before children.
fn descendants(root: u32) -> Vec<u32> {
    // POSIX ps, for want of `/proc` on macOS.
    let table = fs::read_dir("/proc/self").map_or_else(|_| table_of_ps(), |_| table_of_proc());
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(table.iter().filter(|(_, its_parent)| *its_parent == parent).map(|(id, _)| *id));
        next += 1;
    }
    found.split_off(1)
}

/// Process and parent ids from `/proc/*/stat`: the fields after the name, which ends with the last parenthesis.
fn table_of_proc() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect()
}

fn table_of_ps() -> Vec<(u32, u32)> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .collect()
}
