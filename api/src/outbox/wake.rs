//! The hint that there is something to publish.

use std::sync::Arc;

use tokio::sync::Notify;

/// Tells the relay of this process that something was committed. Clones share one signal.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Something was committed: a hint, never the only way the relay learns of it.
    pub fn notify(&self) {
        self.0.notify_one();
    }

    /// Resolves after the next [`Wake::wake`], or at once where one came since the last wait.
    pub async fn notified(&self) {
        self.0.notified().await;
    }
}
