//! The status of this process's relay, for health and metrics.

use std::sync::{Arc, Mutex, PoisonError};

use super::Lease;

/// Whether this process relays, and why its last step failed.
#[derive(Clone, Debug)]
pub struct RelayStatus {
    lease: Arc<Lease>,
    last_error: Arc<Mutex<Option<String>>>,
}

impl RelayStatus {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, last_error: Arc::default() }
    }

    /// Whether this process holds the lease.
    pub fn lease_held(&self) -> bool {
        self.lease.held_epoch().is_some()
    }

    /// Why the last step failed; `None` if it did not.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}
