//! An answer that is given again for a moment, so that polling cannot hammer what is polled about.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

/// How long an answer is given again.
const FRESH: Duration = Duration::from_secs(1);

/// The last answer. Callers at the same time share one probe.
#[derive(Debug)]
pub(super) struct Fresh<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Fresh<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The last answer if it is younger than a second, else a new one.
    pub(super) async fn get(&self, probe: impl Future<Output = T>) -> Arc<T> {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Arc::clone(answer);
        }
        let answer = Arc::new(probe.await);
        *last = Some((Instant::now(), Arc::clone(&answer)));
        answer
    }
}
