//! What the source, its reader and the background task of one consumer share.

use std::sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool};

use tokio_util::sync::CancellationToken;

use super::{group::Group, in_flight::InFlight};

/// One consumer of the group.
#[derive(Debug)]
pub(super) struct ConsumerState {
    pub(super) group: Group,
    in_flight: Mutex<InFlight>,
    /// Whether reads have had a connection before: a later one is a reconnect.
    pub(super) was_connected: AtomicBool,
    pub(super) closed: CancellationToken,
}

impl ConsumerState {
    pub(super) fn new(group: Group) -> Self {
        Self {
            group,
            in_flight: Mutex::default(),
            was_connected: AtomicBool::new(false),
            closed: CancellationToken::new(),
        }
    }

    pub(super) fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
