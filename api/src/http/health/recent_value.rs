//! A value that is used for a second, so that polling does not flood what is polled.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

/// How long a value is used.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The last value. Callers at the same time share one probe.
#[derive(Debug)]
pub(super) struct RecentValue<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> RecentValue<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns the last value if it is younger than a second, else a new one.
    pub(super) async fn get(&self, probe: impl Future<Output = T>) -> Arc<T> {
        let mut last = self.0.lock().await;
        if let Some((at, value)) = last.as_ref()
            && at.elapsed() < MAX_AGE
        {
            return Arc::clone(value);
        }
        let value = Arc::new(probe.await);
        *last = Some((Instant::now(), Arc::clone(&value)));
        value
    }
}
