//! The signal that there are events to publish.

use std::sync::Arc;

use tokio::sync::Notify;

/// Signals the relay of this process that events were committed. Clones share one signal.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Signals that events were committed. Only a hint: the relay also polls the log.
    pub fn notify(&self) {
        self.0.notify_one();
    }

    /// Resolves after the next [`Wake::notify`], or at once if there was one since the last wait.
    pub async fn notified(&self) {
        self.0.notified().await;
    }
}
