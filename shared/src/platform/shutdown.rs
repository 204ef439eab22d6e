//! Shutdown as a value: a signal stops new work, a tracker waits for running tasks, and a deadline ends them.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a process waits for its tasks before it ends anyway.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Every task that must end with the process has one. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    /// A shutdown that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the shutdown on Ctrl-C or SIGTERM.
    pub fn listen_for_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let soft = self.soft.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("shutting down");
            soft.cancel();
        });
        Ok(())
    }

    /// Begins the shutdown: every holder stops taking new work.
    pub fn begin(&self) {
        self.soft.cancel();
    }

    /// Whether the shutdown has begun.
    pub fn has_begun(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves when the shutdown begins.
    pub async fn begun(&self) {
        self.soft.cancelled().await;
    }

    /// Runs a task that [`Shutdown::drained`] waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Boxed, because the runtime moves a new task several times, and some are large.
        self.tracker.spawn(Box::pin(task));
    }

    /// Waits for every tracked task, at most for `deadline`. `false` if some are still running.
    pub async fn drained(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}
