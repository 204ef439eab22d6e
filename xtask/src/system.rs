//! The servers and programs that a command has started, and how they are stopped.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use testbed::source::Service;
use testbed::{Program, ProgramBuilder};

use crate::signals::Signals;
use crate::status::print_status;

/// How often a program that has ended is started, until one start succeeds.
const RESTARTS: u32 = 5;
/// Before the next start.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Everything that runs, in the order in which it was started. Steps that run side by side share it: if one of them fails,
/// the servers that the others have started are still stopped.
#[derive(Debug, Default)]
pub(crate) struct System {
    running: Mutex<Vec<Component>>,
}

/// What something is for. They stop in this order: first what accepts work, last what stores it.
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
struct Component {
    role: Role,
    title: String,
    kind: ComponentKind,
}

#[derive(Debug)]
enum ComponentKind {
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

/// Calls `work` with servers that are discarded when it ends, or at Ctrl-C.
pub(crate) async fn with_temporary_servers(
    work: impl AsyncFnOnce(&System) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let system = System::default();
    let outcome = tokio::select! {
        outcome = work(&system) => outcome,
        () = signals.recv() => Ok(ExitCode::FAILURE),
    };
    tokio::select! {
        () = system.discard_servers() => {}
        // At a second Ctrl-C the watchdog ends what is left.
        () = signals.recv() => {}
    }
    outcome
}

impl System {
    /// Starts a server and reports its address.
    pub(crate) async fn start_server(
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
        print_status(format!("     {title} is up after {took:.1} s: {}, {}", service.origin(), address.url));
        self.keep(role, title, ComponentKind::Server(Box::new(service)));
        Ok(address)
    }

    /// Starts a program and waits until it answers at `ready`.
    pub(crate) async fn start_program(
        &self,
        role: Role,
        title: &str,
        launch: ProgramBuilder,
        ready: &str,
    ) -> anyhow::Result<()> {
        let mut program = launch.clone().start()?;
        program.ready(ready).await?;
        print_status(format!("     {title} is ready (process {})", program.id()));
        let running = Running { program, launch, ready: ready.to_owned() };
        self.keep(role, title, ComponentKind::Program(Box::new(running)));
        Ok(())
    }

    /// Restarts programs that end unexpectedly, as a supervisor in production would. Fails if a server ends, or if a program
    /// does not become ready however often it is started.
    pub(crate) async fn supervise(&self) -> anyhow::Result<()> {
        loop {
            if let Some((role, title, running)) = self.next_to_start_again()? {
                self.start_again(role, &title, &running).await?;
            } else {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Starts a program that has ended. It may end once more while it starts.
    async fn start_again(&self, role: Role, title: &str, running: &Running) -> anyhow::Result<()> {
        for _ in 1..RESTARTS {
            match self.start_program(role, title, running.launch.clone(), &running.ready).await {
                Ok(()) => return Ok(()),
                Err(error) => print_status(format!("     {error:#}; it is started again")),
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
        self.start_program(role, title, running.launch.clone(), &running.ready).await
    }

    /// Removes a program that has ended, and reports it.
    fn next_to_start_again(&self) -> anyhow::Result<Option<(Role, String, Running)>> {
        let mut components = self.lock();
        let mut ended = None;
        for (index, component) in components.iter_mut().enumerate() {
            match &mut component.kind {
                ComponentKind::Server(service) if service.has_failed() => {
                    bail!("{} has ended unexpectedly", component.title)
                }
                ComponentKind::Program(running) => {
                    if let Some(status) = running.program.ended() {
                        print_status(format!(
                            "     {} has ended ({status}) and is started again",
                            component.title
                        ));
                        ended = Some(index);
                        break;
                    }
                }
                ComponentKind::Server(_) => {}
            }
        }
        Ok(ended.map(|index| components.remove(index)).and_then(|component| match component.kind {
            ComponentKind::Program(running) => Some((component.role, component.title, *running)),
            ComponentKind::Server(_) => None,
        }))
    }

    /// Ends all servers at once; their data is thrown away.
    pub(crate) async fn discard_servers(&self) {
        let components = std::mem::take(&mut *self.lock());
        for component in components {
            if let ComponentKind::Server(service) = component.kind
                && let Err(error) = service.discard().await
            {
                print_status(format!("{}: {error:#}", component.title));
            }
        }
    }

    /// Stops everything in the order of roles, and reports each.
    pub(crate) async fn stop_all(&self) {
        // Taken out one by one: what is left when this is abandoned is the watchdog's.
        while let Some(Component { title, kind, .. }) = self.next_to_stop() {
            let stopped = match kind {
                ComponentKind::Server(service) => service.stop().await,
                ComponentKind::Program(running) => running.program.stop().await.map(|_| ()),
            };
            match stopped {
                Ok(()) => print_status(format!("     {title} has stopped")),
                Err(error) => print_status(format!("     {title}: {error:#}")),
            }
        }
    }

    fn next_to_stop(&self) -> Option<Component> {
        let mut running = self.lock();
        let next = (0..running.len()).min_by_key(|index| running[*index].role)?;
        Some(running.remove(next))
    }

    /// Whether nothing runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn keep(&self, role: Role, title: &str, kind: ComponentKind) {
        self.lock().push(Component { role, title: title.to_owned(), kind });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Component>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
