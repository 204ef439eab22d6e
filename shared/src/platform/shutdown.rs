//! Shutdown as a value: a soft signal stops intake, a tracker waits for what runs, a deadline ends it.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a process may take to drain before it ends anyway.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Handed to every task that must end with the process. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    /// One that nothing has asked for yet.
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

    /// Asks every holder to stop taking new work.
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
        // Boxed once, because on its way into the runtime a task is moved several times, and some are large.
        self.tracker.spawn(Box::pin(task));
    }

    /// Waits for every tracked task, at most `deadline`. `false` where some were still running.
    pub async fn drained(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}
