//! Shutdown as a value: a signal stops new work, a tracker waits for running tasks, and a deadline ends them.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a process that was told to stop waits for its tasks before it ends anyway.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Every task that must end with the process has one. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    began: Arc<OnceLock<Instant>>,
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
        let shutdown = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("shutting down");
            shutdown.begin();
        });
        Ok(())
    }

    /// Begins the shutdown: every holder stops taking new work.
    pub fn begin(&self) {
        self.began.get_or_init(Instant::now);
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

    /// Waits for every tracked task until `deadline` after the beginning of the shutdown. `false` if some are still running.
    pub async fn drained(&self, deadline: Duration) -> bool {
        self.tracker.close();
        let spent = self.began.get().map_or(Duration::ZERO, Instant::elapsed);
        tokio::time::timeout(deadline.saturating_sub(spent), self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_deadline_counts_from_the_beginning_of_the_shutdown() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending());
        let hour = Duration::from_hours(1);
        shutdown.began.set(Instant::now().checked_sub(hour).unwrap()).unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(10), shutdown.drained(hour)).await;
        assert_eq!(waited, Ok(false), "the hour is over");
    }
}
