//! How much is measured.

use std::time::Duration;

/// Sizes and lengths of all cases.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often a case and its reference take turns.
    pub rounds: usize,
    /// The same for cases whose rounds are long.
    pub long_rounds: usize,
    /// Length of a run of the load generator.
    pub seconds: u32,
    /// Length of the runs before, which do not count.
    pub warm_up: u32,
    /// Orders that the list and the updates find.
    pub orders: i64,
    /// Orders that are read from the cache.
    pub cached: i64,
    /// Events to consume.
    pub events: i64,
    /// The large backlog and the small one.
    pub backlog: (i64, i64),
    /// Orders of a file that is imported.
    pub imported: i64,
    /// How long the lag is watched.
    pub lag: Duration,
    /// How often the programs are started.
    pub starts: usize,
}

impl Plan {
    /// What the targets are about.
    pub fn full() -> Self {
        Self {
            rounds: 5,
            long_rounds: 3,
            seconds: 4,
            warm_up: 2,
            orders: 1_000_000,
            cached: 10_000,
            events: 200_000,
            backlog: (1_000_000, 10_000),
            imported: 100_000,
            lag: Duration::from_secs(20),
            starts: 11,
        }
    }

    /// Small numbers that show that everything works, and mean nothing beyond that.
    pub fn quick() -> Self {
        Self {
            rounds: 2,
            long_rounds: 2,
            seconds: 1,
            warm_up: 1,
            orders: 20_000,
            cached: 500,
            events: 2_000,
            backlog: (10_000, 2_000),
            imported: 2_000,
            lag: Duration::from_secs(2),
            starts: 3,
        }
    }
}
