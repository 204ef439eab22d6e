//! What the relay of this process is at, for health and metrics.

use std::sync::{Arc, Mutex, PoisonError};

use super::Lease;

/// Whether this process relays, and why it does not get on.
#[derive(Clone, Debug)]
pub struct RelayStatus {
    lease: Arc<Lease>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl RelayStatus {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, trouble: Arc::default() }
    }

    /// Whether this process holds the lease.
    pub fn lease_held(&self) -> bool {
        self.lease.held().is_some()
    }

    /// Why the last step failed; `None` if it did not.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}
