//! Looking entries up: what many tasks ask for while a round trip is on its way shares the next one.
//!
//! A round trip costs both sides several times what an entry costs. There is no timer: alone, a lookup waits for nobody.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{CacheError, Lookup};
use crate::domain::order::OrderId;

/// Entries asked for in one round trip, which bounds how long Redis and the connection are busy with it.
const MOST: usize = 256;

/// The lookups that wait, and whether somebody is asking Redis.
#[derive(Default)]
pub(super) struct Lookups(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    asked: Vec<Asked>,
    asking: bool,
}

/// One lookup that waits.
pub(super) struct Asked {
    pub(super) id: OrderId,
    reply: oneshot::Sender<Result<Lookup, CacheError>>,
}

impl Asked {
    pub(super) fn answer(self, answer: Result<Lookup, CacheError>) {
        let _nobody_waits_any_more = self.reply.send(answer);
    }
}

/// The duty to ask Redis for whatever waits until nothing does. However it ends, nobody is left waiting.
pub(super) struct Duty<'a> {
    lookups: &'a Lookups,
    over: bool,
}

impl Lookups {
    /// Adds a lookup. `true`: nobody is asking, so the caller must see to it that [`Lookups::duty`] is done.
    pub(super) fn ask(&self, id: OrderId) -> (oneshot::Receiver<Result<Lookup, CacheError>>, bool) {
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.asked.push(Asked { id, reply });
        (answer, !mem::replace(&mut waiting.asking, true))
    }

    /// Begins to ask.
    pub(super) fn duty(&self) -> Duty<'_> {
        Duty { lookups: self, over: false }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Duty<'_> {
    /// The lookups of the next round trip; `None` where none wait, and then the duty is over.
    pub(super) fn next(&mut self) -> Option<Vec<Asked>> {
        let mut waiting = self.lookups.lock();
        if waiting.asked.is_empty() {
            waiting.asking = false;
            self.over = true;
            return None;
        }
        if waiting.asked.len() <= MOST {
            // The room is kept for the next ones.
            let room = Vec::with_capacity(waiting.asked.len());
            return Some(mem::replace(&mut waiting.asked, room));
        }
        let later = waiting.asked.split_off(MOST);
        Some(mem::replace(&mut waiting.asked, later))
    }

    /// All that wait: they have waited for the round trip that failed, and do not wait for another one.
    pub(super) fn all(&self) -> Vec<Asked> {
        mem::take(&mut self.lookups.lock().asked)
    }
}

impl Drop for Duty<'_> {
    fn drop(&mut self) {
        if !self.over {
            // Cut short, as at the end of the runtime: those that wait see their sender go.
            *self.lookups.lock() = Waiting::default();
        }
    }
}
