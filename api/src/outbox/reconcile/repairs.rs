//! Which events were published again recently, and when they may be published again.
//!
//! Kept in memory only. A new holder of the lease starts without it, which costs some duplicates.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{scan::ScanResult, settings::ReconcilerSettings};

/// The longest time that an event, or the probes, are left alone.
const MAX_PAUSE: Duration = Duration::from_hours(1);
/// How many events are remembered, some 10 MB. While the log is full, no further events are published again.
const MAX_EVENTS: usize = 200_000;

/// For this long after a takeover of the broker's server the reconciler looks for lost events,
const HURRIED_FOR: Duration = Duration::from_mins(1);
/// and from this age on an event should be in the history: workers have reconnected by then, and duplicates do no harm.
const HURRIED_AFTER: Duration = Duration::from_secs(5);

/// The repairs that the reconciler remembers from round to round.
#[derive(Debug)]
pub(super) struct RepairLog {
    first_pause: Duration,
    /// The repaired events by id.
    repaired: BTreeMap<i64, Repair>,
    probe_due: Instant,
    probe_pause: Duration,
    /// Where the rescan of recent events continues.
    pub(super) recent_cursor: i64,
    /// How many takeovers of the broker's server were seen.
    takeovers: u64,
    hurried_until: Option<Instant>,
}

#[derive(Debug)]
struct Repair {
    /// When the event may be published again.
    due: Instant,
    pause: Duration,
}

impl RepairLog {
    pub(super) fn new(first_pause: Duration) -> Self {
        Self {
            first_pause,
            repaired: BTreeMap::new(),
            probe_due: Instant::now(),
            probe_pause: first_pause,
            recent_cursor: 0,
            takeovers: 0,
            hurried_until: None,
        }
    }

    /// Records how many takeovers there were. After a new one nothing that was published again counts.
    pub(super) fn record_takeovers(&mut self, takeovers: u64) {
        if takeovers != self.takeovers {
            self.takeovers = takeovers;
            self.repaired.clear();
            (self.probe_due, self.probe_pause) = (Instant::now(), self.first_pause);
            self.hurried_until = Some(Instant::now() + HURRIED_FOR);
        }
    }

    pub(super) fn is_hurried(&self) -> bool {
        self.hurried_until.is_some_and(|until| Instant::now() < until)
    }

    /// From which age on an event should be in the history.
    pub(super) fn settled_after(&self, settings: &ReconcilerSettings) -> Duration {
        if self.is_hurried() { settings.after.min(HURRIED_AFTER) } else { settings.after }
    }

    /// Chooses the events to publish again now, in ascending order.
    pub(super) fn choose_repairs(&mut self, found: &ScanResult, settings: &ReconcilerSettings) -> Vec<i64> {
        let now = Instant::now();
        let room = settings.repairs.min(MAX_EVENTS.saturating_sub(self.repaired.len()));
        let mut chosen: Vec<_> =
            found.skipped.iter().copied().filter(|id| self.is_due(*id, now)).take(room).collect();
        if found.moved || !found.skipped.is_empty() {
            // Consumers are working. If they stop, the first probes are published without delay.
            (self.probe_due, self.probe_pause) = (now, self.first_pause);
        } else if !found.behind.is_empty() && now >= self.probe_due {
            let first = found.behind.len().saturating_sub(settings.probes.min(room));
            chosen.extend(&found.behind[first..]);
            self.probe_due = now + self.probe_pause;
            self.probe_pause = (self.probe_pause * 2).min(MAX_PAUSE);
        }
        chosen.sort_unstable();
        chosen
    }

    fn is_due(&self, id: i64, now: Instant) -> bool {
        self.repaired.get(&id).is_none_or(|repair| now >= repair.due)
    }

    /// Records that the event was published again.
    pub(super) fn record_published(&mut self, id: i64) {
        let pause =
            self.repaired.get(&id).map_or(self.first_pause, |repair| (repair.pause * 2).min(MAX_PAUSE));
        self.repaired.insert(id, Repair { due: Instant::now() + pause, pause });
    }

    /// Forgets events that are verified now, and events whose pause ended long ago.
    pub(super) fn forget_verified(&mut self, after: i64, upto: i64) {
        let now = Instant::now();
        self.repaired.retain(|id, repair| (*id <= after || *id > upto) && now < repair.due + MAX_PAUSE);
    }
}
