//! The servers and programs that a command has started, and how they are stopped.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use testbed::source::Service;
use testbed::{Program, ProgramBuilder};

use crate::say::say;
use crate::signals::Signals;

/// What runs, in the order in which it was started. Shared by the steps that start things side by side, so that one
/// that is abandoned half-way leaves the others' servers to be stopped.
#[derive(Debug, Default)]
pub(crate) struct System {
    running: Mutex<Vec<Part>>,
}

/// What something is for. The order is that of stopping: first whoever takes in work, last where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Api,
    Worker,
    Broker,
    Redis,
    Postgres,
}

/// Something that runs.
#[derive(Debug)]
struct Part {
    role: Role,
    title: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Server(Box<Service>),
    Program(Box<Running>),
}

/// A program, with what it takes to start it again.
#[derive(Debug)]
struct Running {
    program: Program,
    launch: ProgramBuilder,
    ready: String,
}

/// How to reach a server that was started.
#[derive(Debug)]
pub(crate) struct Address {
    /// For its clients.
    pub(crate) url: String,
    /// RabbitMQ's management API.
    pub(crate) management_url: Option<String>,
}

/// Does `work` with servers that are thrown away when it ends, or at Ctrl-C.
pub(crate) async fn throwaway(
    work: impl AsyncFnOnce(&System) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let system = System::default();
    let outcome = tokio::select! {
        outcome = work(&system) => outcome,
        () = signals.recv() => Ok(ExitCode::FAILURE),
    };
    tokio::select! {
        () = system.discard() => {}
        // Asked twice: the watchdog ends what is left.
        () = signals.recv() => {}
    }
    outcome
}

impl System {
    /// Starts a server and says so.
    pub(crate) async fn serve(
        &self,
        role: Role,
        title: &str,
        starting: impl Future<Output = anyhow::Result<Service>>,
    ) -> anyhow::Result<Address> {
        let start = Instant::now();
        let service = starting.await?;
        let address = Address {
            url: service.url().to_owned(),
            management_url: service.management_url().map(str::to_owned),
        };
        let took = start.elapsed().as_secs_f32();
        say(format!("     {title} is up after {took:.1} s: {}, {}", service.origin(), address.url));
        self.keep(role, title, What::Server(Box::new(service)));
        Ok(address)
    }

    /// Starts a program and waits until it answers at `ready`.
    pub(crate) async fn run(
        &self,
        role: Role,
        title: &str,
        launch: ProgramBuilder,
        ready: &str,
    ) -> anyhow::Result<()> {
        let mut program = launch.clone().start()?;
        program.ready(ready).await?;
        say(format!("     {title} is ready (process {})", program.id()));
        let running = Running { program, launch, ready: ready.to_owned() };
        self.keep(role, title, What::Program(Box::new(running)));
        Ok(())
    }

    /// Starts programs again that end although nobody has stopped them, as whoever runs them elsewhere would; nothing is
    /// lost meanwhile. Fails where a server ends, or a program does not come up again.
    pub(crate) async fn attend(&self) -> anyhow::Result<()> {
        loop {
            if let Some((role, title, running)) = self.next_to_start_again()? {
                self.run(role, &title, running.launch, &running.ready).await?;
            } else {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Takes out a program that has ended, and says so.
    fn next_to_start_again(&self) -> anyhow::Result<Option<(Role, String, Running)>> {
        let mut parts = self.lock();
        let mut ended = None;
        for (index, part) in parts.iter_mut().enumerate() {
            match &mut part.what {
                What::Server(service) if service.has_failed() => {
                    bail!("{} has ended unexpectedly", part.title)
                }
                What::Program(running) => {
                    if let Some(status) = running.program.ended() {
                        say(format!("     {} has ended ({status}) and is started again", part.title));
                        ended = Some(index);
                        break;
                    }
                }
                What::Server(_) => {}
            }
        }
        Ok(ended.map(|index| parts.remove(index)).and_then(|part| match part.what {
            What::Program(running) => Some((part.role, part.title, *running)),
            What::Server(_) => None,
        }))
    }

    /// Ends everything at once, where nothing is kept.
    pub(crate) async fn discard(&self) {
        let parts = std::mem::take(&mut *self.lock());
        for part in parts {
            if let What::Server(service) = part.what
                && let Err(error) = service.discard().await
            {
                say(format!("{}: {error:#}", part.title));
            }
        }
    }

    /// Stops everything in the order of roles, and says so.
    pub(crate) async fn stop(&self) {
        // Taken out one by one: what is left when this is abandoned is the watchdog's.
        while let Some(Part { title, what, .. }) = self.next_to_stop() {
            let stopped = match what {
                What::Server(service) => service.stop().await,
                What::Program(running) => running.program.stop().await.map(|_| ()),
            };
            match stopped {
                Ok(()) => say(format!("     {title} has stopped")),
                Err(error) => say(format!("     {title}: {error:#}")),
            }
        }
    }

    fn next_to_stop(&self) -> Option<Part> {
        let mut running = self.lock();
        let next = (0..running.len()).min_by_key(|index| running[*index].role)?;
        Some(running.remove(next))
    }

    /// Whether nothing runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn keep(&self, role: Role, title: &str, what: What) {
        self.lock().push(Part { role, title: title.to_owned(), what });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Part>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
