//! The status of this process's relay, for health and metrics.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{sync::watch, time::Instant};

use super::Lease;

/// Whether this process relays, and why its last step failed.
#[derive(Clone, Debug)]
pub struct RelayStatus {
    lease: Arc<Lease>,
    last_error: Arc<Mutex<Option<String>>>,
    sequenced: watch::Sender<Instant>,
}

impl RelayStatus {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, last_error: Arc::default(), sequenced: watch::Sender::new(Instant::now()) }
    }

    /// Whether this process holds the lease.
    pub fn lease_held(&self) -> bool {
        self.lease.held_epoch().is_some()
    }

    /// Why the last step failed; `None` if it did not.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever this process has given positions to events.
    pub fn sequenced(&self) -> watch::Receiver<Instant> {
        self.sequenced.subscribe()
    }

    /// When this process last looked for events without a position.
    pub(super) fn last_sequenced(&self) -> Instant {
        *self.sequenced.borrow()
    }

    pub(super) fn record_sequenced(&self, events: i64) {
        self.sequenced.send_if_modified(|last| {
            *last = Instant::now();
            events > 0
        });
    }

    pub(super) fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}
