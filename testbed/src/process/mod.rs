//! Child processes: started so that none is left behind, stopped in good order, with their output in a file.

mod launch;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::watchdog;

pub use launch::{Launch, User};

/// A process that does not react to its stop signal within this time is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// The signal that stops a process in good order.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// SIGTERM, as most want it.
    Term,
    /// SIGINT: PostgreSQL ends its sessions and writes a checkpoint.
    Int,
    /// SIGQUIT: PostgreSQL ends at once, for temporary data.
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
        while start.elapsed() < STOP_TIMEOUT {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::bail!("{} did not stop within {STOP_TIMEOUT:?} and was killed", self.name);
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
        for descendant in tree::descendants(self.id()).into_iter().filter_map(pid) {
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
