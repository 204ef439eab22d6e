//! The binaries of this workspace as processes: what end-to-end tests and `cargo xtask up` run.

use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::process::{Launch, Process};
use crate::{http, paths, port};

/// A start takes a second; a slow and busy machine is given time.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// The number of threads for a program that shares this machine with the servers it uses: the value of
/// `TOKIO_WORKER_THREADS` if it is set, else half of the cores, at least one. More threads only take turns with the servers
/// (docs/PERFORMANCE.md).
pub fn threads_beside_servers() -> String {
    let half =
        || std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)).to_string();
    // As it is written: the program itself refuses a bad value.
    crate::setting("TOKIO_WORKER_THREADS").unwrap_or_else(half)
}

/// A running `api` or `worker`. It is killed with this value.
#[derive(Debug)]
pub struct Program {
    process: Process,
}

/// What to start, and with which settings.
#[derive(Clone, Debug)]
pub struct ProgramBuilder {
    launch: Launch,
}

impl Program {
    /// The binary of this name in the running build, with none of the environment of the test but what it is given.
    ///
    /// # Panics
    ///
    /// When it has not been built.
    pub fn builder(name: &str) -> ProgramBuilder {
        let made = (|| {
            let binary = paths::binaries()?.join(name);
            ensure!(binary.is_file(), "{} has not been built: run `cargo build -p {name}`", binary.display());
            let scratch = paths::temporary(name)?;
            crate::watchdog::remove_at_end(&scratch)?;
            // In a folder of its own, so that no `.env` of the workspace is read.
            let launch = Launch::new(binary, scratch.join("log")).folder(&scratch).clear_env();
            Ok::<_, anyhow::Error>(ProgramBuilder { launch })
        })();
        made.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// A given binary with a log file that is kept, in a given folder, for `cargo xtask up`.
    pub fn at(binary: &Path, log: &Path, folder: &Path) -> ProgramBuilder {
        ProgramBuilder { launch: Launch::new(binary, log).folder(folder) }
    }

    /// Waits until this address answers with a 2xx.
    ///
    /// # Panics
    ///
    /// When it does not within a minute, or the program ends before, with the last line of its log.
    pub async fn wait_ready(&mut self, url: &str) {
        self.ready(url).await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
    }

    /// [`Self::wait_ready`] that returns an error instead of panicking.
    pub async fn ready(&mut self, url: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.ended()? {
                bail!("{} ended at its start ({status}): {}", self.process.name(), self.process.last_line());
            }
            let seen = match http::get(url).await {
                Ok(response) if response.is_success() => return Ok(()),
                Ok(response) => format!("{url} returns {}", response.status),
                Err(error) => error.to_string(),
            };
            if start.elapsed() > START_TIMEOUT {
                bail!(
                    "{} was not ready within {START_TIMEOUT:?}: {seen}; {}",
                    self.process.name(),
                    self.process.last_line()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGTERM, then waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end within half a minute.
    pub async fn terminate(self) -> ExitStatus {
        self.stop().await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// [`Self::terminate`] that returns an error instead of panicking.
    pub async fn stop(self) -> anyhow::Result<ExitStatus> {
        self.process.terminate().await
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.process.kill();
    }

    /// SIGSTOP: it holds its connections and does nothing.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT after [`Self::pause`].
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// When it cannot be waited for.
    pub async fn wait(mut self) -> (ExitStatus, String) {
        let status = self.process.wait().await.expect("a child process can be waited for");
        (status, self.log())
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended().ok().flatten()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The last line that says something in what it has written.
    pub fn last_line(&self) -> String {
        self.process.last_line()
    }
}

impl ProgramBuilder {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.launch = self.launch.arg(arg);
        self
    }

    /// Sets a variable.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "texts and port numbers read alike at the call")]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.launch = self.launch.env(name, value.to_string());
        self
    }

    /// Sets variables.
    #[must_use]
    pub fn envs<N: AsRef<str>, V: AsRef<str>>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        for (name, value) in variables {
            self.launch = self.launch.env(name.as_ref(), value.as_ref());
        }
        self
    }

    /// Inherits no variable but those without which no program works.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.launch = self.launch.clear_env();
        self
    }

    /// Sets a variable to a free loopback port, which is handed back.
    #[must_use]
    pub fn free_port(self, name: &str) -> (Self, u16) {
        let port = port::free_port();
        (self.env(name, port), port)
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn spawn(self) -> Program {
        self.start().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// [`Self::spawn`] that returns an error instead of panicking.
    pub fn start(self) -> anyhow::Result<Program> {
        Ok(Program { process: self.launch.spawn()? })
    }

    /// Runs it to its end, as for `api migrate`, and fails with the last line of its log.
    pub async fn run(self) -> anyhow::Result<()> {
        self.launch.run().await
    }
}
