//! The servers as child processes of our own, on free loopback ports, with their data in a folder of their own.

mod localstack;
mod pgbouncer;
mod postgres;
mod rabbitmq;
mod redis;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sqlx::Connection;

use crate::process::{Launch, Process};
use crate::{http, paths, watchdog};

pub use localstack::{localstack, prepare_localstack};
pub use pgbouncer::{PACKAGE as PGBOUNCER, pgbouncer};
pub use postgres::{PACKAGE as POSTGRES, postgres, postgres_standby};
pub use rabbitmq::{PACKAGE as RABBITMQ, RabbitMq, rabbitmq};
pub(crate) use redis::{EVICTION, start_redis_in};
pub use redis::{PACKAGE as REDIS, durable_redis, redis};

/// How often a server is started again on another port, if another program took the one that was just found free.
const ATTEMPTS: u32 = 3;

/// Where a server keeps its data, and how much it does for it.
#[derive(Clone, Debug)]
pub enum Storage {
    /// In this folder, found again at the next start, and safe against a crash.
    Keep(PathBuf),
    /// In a temporary folder, fast, and removed at the end.
    Throwaway,
}

/// A server process that can be stopped and started again with its data, and made to fail.
#[derive(Debug)]
pub struct Server {
    title: &'static str,
    launch: Launch,
    url: String,
    probe: Probe,
    patience: Duration,
    process: Mutex<Option<Process>>,
}

/// What shows that a server is up.
#[derive(Clone, Debug)]
enum Probe {
    /// A connection to this PostgreSQL database.
    Postgres(String),
    /// An answer to PING of this Redis.
    Redis(String),
    /// A 2xx from this address.
    Http(String),
    /// A TCP connection to this address.
    Tcp(String),
}

impl Server {
    /// What clients connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts it, again, on the same port with the same data, and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<()> {
        let process = self.launch.spawn()?;
        *self.lock() = Some(process);
        let start = Instant::now();
        loop {
            if self.ended()? {
                bail!("{} did not start: {}", self.title, self.launch.last_line());
            }
            let seen = match tokio::time::timeout(Duration::from_secs(2), self.probe.look()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "it does not answer".into(),
            };
            if start.elapsed() > self.patience {
                self.kill();
                bail!(
                    "{} did not come up within {:?}: {seen} (see {})",
                    self.title,
                    self.patience,
                    self.launch.log_file()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it in good order.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let process = self.lock().take();
        match process {
            Some(process) => process.terminate().await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Kills it with SIGKILL, as a power cut would.
    pub fn kill(&self) {
        if let Some(process) = self.lock().take() {
            process.kill();
        }
    }

    /// Stops it with SIGSTOP: connections stay open, and nothing answers.
    pub fn pause(&self) {
        if let Some(process) = self.lock().as_ref() {
            process.pause();
        }
    }

    /// Has it go on after [`Self::pause`].
    pub fn resume(&self) {
        if let Some(process) = self.lock().as_ref() {
            process.resume();
        }
    }

    /// Whether the process has ended, or was never started.
    pub fn ended(&self) -> anyhow::Result<bool> {
        self.lock().as_mut().map_or(Ok(true), |process| Ok(process.ended()?.is_some()))
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.lock().as_ref().map(Process::id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe {
    async fn look(&self) -> anyhow::Result<()> {
        match self {
            Self::Postgres(url) => sqlx::PgConnection::connect(url).await?.close().await?,
            Self::Redis(url) => {
                let mut connection =
                    ::redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
                ::redis::cmd("PING").exec_async(&mut connection).await?;
            }
            Self::Http(url) => {
                let response = http::get(url).await?;
                anyhow::ensure!(response.is_success(), "it answers {}", response.status);
            }
            Self::Tcp(address) => {
                tokio::net::TcpStream::connect(address).await?;
            }
        }
        Ok(())
    }
}

impl Storage {
    /// The folder, which exists then.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        match self {
            Self::Keep(folder) => {
                fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
                Ok(folder.clone())
            }
            Self::Throwaway => {
                let folder = paths::temporary(name)?;
                watchdog::remove_at_end(&folder)?;
                Ok(folder)
            }
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

/// Starts the server that `on_port` describes, on the port it had last time or another one.
async fn start_on_a_free_port(folder: &Path, on_port: impl Fn(u16) -> Server) -> anyhow::Result<Server> {
    let remembered = folder.join("port");
    let last = fs::read_to_string(&remembered).ok().and_then(|text| text.trim().parse().ok());
    let mut port = crate::port::prefer(last);
    let mut attempt = 1;
    loop {
        let server = on_port(port);
        match server.start().await {
            Ok(()) => {
                fs::write(&remembered, port.to_string())?;
                return Ok(server);
            }
            // Another program may listen on the port by now.
            Err(error) if attempt == ATTEMPTS || crate::port::is_free(port) => return Err(error),
            Err(_) => (port, attempt) = (crate::free_port(), attempt + 1),
        }
    }
}
