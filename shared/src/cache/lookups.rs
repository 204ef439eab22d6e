//! Lookups of entries: those that come while a round trip is on its way share the next one.
//!
//! A round trip costs both sides several times as much as an entry. There is no timer: a lookup that is alone does not wait.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{entry::Lookup, error::CacheError};
use crate::domain::order::OrderKey;

/// The most entries of one round trip, which bounds how long Redis and the connection are busy with it.
const MAX_BATCH: usize = 256;

/// The lookups that wait for the next round trip.
#[derive(Default)]
pub(super) struct Lookups(Mutex<LookupQueue>);

#[derive(Default)]
struct LookupQueue {
    pending: Vec<PendingLookup>,
    /// A task asks Redis for them.
    is_served: bool,
}

/// One lookup that waits.
pub(super) struct PendingLookup {
    pub(super) order: OrderKey,
    reply_to: oneshot::Sender<Result<Lookup, CacheError>>,
}

impl PendingLookup {
    pub(super) fn reply(self, result: Result<Lookup, CacheError>) {
        let _caller_gave_up = self.reply_to.send(result);
    }
}

/// A series of round trips that lasts until no lookup waits. If it is dropped earlier, all lookups that wait fail.
pub(super) struct Flight<'a> {
    lookups: &'a Lookups,
    is_over: bool,
}

impl Lookups {
    /// Adds a lookup. Returns where its result arrives, and whether the caller must start a [`Flight`].
    pub(super) fn add(&self, order: OrderKey) -> (oneshot::Receiver<Result<Lookup, CacheError>>, bool) {
        let (reply_to, result) = oneshot::channel();
        let mut queue = self.lock();
        queue.pending.push(PendingLookup { order, reply_to });
        (result, !mem::replace(&mut queue.is_served, true))
    }

    /// Starts the round trips.
    pub(super) fn start_flight(&self) -> Flight<'_> {
        Flight { lookups: self, is_over: false }
    }

    fn lock(&self) -> MutexGuard<'_, LookupQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight<'_> {
    /// Takes the lookups of the next round trip; `None` if none waits, and then the flight is over.
    pub(super) fn next_batch(&mut self) -> Option<Vec<PendingLookup>> {
        let mut queue = self.lookups.lock();
        if queue.pending.is_empty() {
            queue.is_served = false;
            self.is_over = true;
            return None;
        }
        if queue.pending.len() <= MAX_BATCH {
            return Some(mem::take(&mut queue.pending));
        }
        let later = queue.pending.split_off(MAX_BATCH);
        Some(mem::replace(&mut queue.pending, later))
    }

    /// Takes all lookups that wait.
    pub(super) fn take_all(&self) -> Vec<PendingLookup> {
        mem::take(&mut self.lookups.lock().pending)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // Dropped early, as at the end of the runtime: with the senders, the lookups that wait end.
            *self.lookups.lock() = LookupQueue::default();
        }
    }
}
