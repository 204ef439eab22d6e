//! Shutdown as a value: a signal stops new work, a tracker waits for running tasks, and a deadline ends them.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

/// How long a process that was told to stop waits for its tasks before it ends anyway.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Before a task that has panicked is started again, so that one that always does keeps no processor busy.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

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

    /// Runs a task without which the process would look healthy and do only a part of its work: see [`Self::restart_on_panic`].
    pub fn spawn_restarting<F>(&self, name: &'static str, start: impl Fn(Self) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.clone();
        self.spawn(async move { shutdown.restart_on_panic(name, start).await });
    }

    /// Runs a task to its end. If it panics before the shutdown, that is logged, and it is started again after a second.
    pub async fn restart_on_panic<F>(&self, name: &'static str, start: impl Fn(Self) -> F + Send + Sync)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while let Err(error) = AbortOnDropHandle::new(tokio::spawn(start(self.clone()))).await {
            tracing::error!(task = name, error = %error, "a task stopped unexpectedly and is started again");
            tokio::select! {
                () = self.begun() => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_started_again_until_it_ends_or_the_shutdown_begins() {
        let shutdown = Shutdown::new();
        let starts = AtomicUsize::new(0);
        let start = |_| {
            let is_first = starts.fetch_add(1, Ordering::Relaxed) == 0;
            async move { assert!(!is_first, "the first one panics") }
        };
        shutdown.restart_on_panic("test", start).await;
        assert_eq!(starts.load(Ordering::Relaxed), 2);

        shutdown.begin();
        shutdown.restart_on_panic("test", |_| async { panic!("always") }).await;
    }

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
