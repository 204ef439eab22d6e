//! How much the reconciler reads and repairs in a round.

use std::time::Duration;

/// How much the reconciler reads and repairs in a round.
#[derive(Clone, Copy, Debug)]
pub struct ReconcilerSettings {
    /// From which age on an event should be in the history.
    pub after: Duration,
    /// How long an event, or the probes, are left alone after they were published again; doubled each time.
    pub pause: Duration,
    /// How many events after the verified ones a round reads.
    pub scan: i64,
    /// How many events each of the two rescans reads in a round.
    pub rescan: i64,
    /// How many of the newest verified events count as recent.
    pub recent: i64,
    /// How many events a round publishes again at most.
    pub repairs: usize,
    /// How many of those are probes at most.
    pub probes: usize,
    /// How many events a batch has at most.
    pub batch: usize,
}

impl Default for ReconcilerSettings {
    fn default() -> Self {
        Self {
            after: Duration::from_mins(1),
            pause: Duration::from_mins(1),
            scan: 100_000,
            rescan: 10_000,
            recent: 500_000,
            repairs: 50_000,
            probes: 100,
            batch: 500,
        }
    }
}
