//! Patience: what was published again lately, and is left alone for now.
//!
//! Kept in memory only. A new holder of the lease begins without it, which costs some duplicates.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{ReconcilerSettings, passes::Found};

/// The longest that one event, or the probes, are left alone.
const LONGEST: Duration = Duration::from_hours(1);
/// How many events are remembered at most, some 10 MB; while it is full, no more are published again.
const REMEMBERED: usize = 200_000;

/// What the reconciler remembers from round to round.
#[derive(Debug)]
pub(super) struct Memory {
    patience: Duration,
    again: BTreeMap<i64, Again>,
    probe_due: Instant,
    probe_pause: Duration,
    /// Where the second look at recent events has come to.
    pub(super) recent: i64,
}

#[derive(Debug)]
struct Again {
    due: Instant,
    pause: Duration,
}

impl Memory {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, again: BTreeMap::new(), probe_due: Instant::now(), probe_pause: patience, recent: 0 }
    }

    /// Which events are published again now, in ascending order.
    pub(super) fn choose(&mut self, found: &Found, settings: &ReconcilerSettings) -> Vec<i64> {
        let now = Instant::now();
        let room = settings.repairs.min(REMEMBERED.saturating_sub(self.again.len()));
        let mut chosen: Vec<_> =
            found.overtaken.iter().copied().filter(|id| self.is_due(*id, now)).take(room).collect();
        if found.moved || !found.overtaken.is_empty() {
            // Consumers are at work: should they stop, the first probes go out without delay.
            (self.probe_due, self.probe_pause) = (now, self.patience);
        } else if !found.behind.is_empty() && now >= self.probe_due {
            let first = found.behind.len().saturating_sub(settings.probes.min(room));
            chosen.extend(&found.behind[first..]);
            self.probe_due = now + self.probe_pause;
            self.probe_pause = (self.probe_pause * 2).min(LONGEST);
        }
        chosen
    }

    fn is_due(&self, id: i64, now: Instant) -> bool {
        self.again.get(&id).is_none_or(|again| now >= again.due)
    }

    /// The event was published again.
    pub(super) fn published(&mut self, id: i64) {
        let pause = self.again.get(&id).map_or(self.patience, |again| (again.pause * 2).min(LONGEST));
        self.again.insert(id, Again { due: Instant::now() + pause, pause });
    }

    /// What is verified now need not be remembered, nor what came back to rest long ago.
    pub(super) fn forget(&mut self, after: i64, upto: i64) {
        let now = Instant::now();
        self.again.retain(|id, again| (*id <= after || *id > upto) && now < again.due + LONGEST);
    }
}
