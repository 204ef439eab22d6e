//! The clock as a parameter, so that tests decide what time it is.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use time::{Date, Duration, OffsetDateTime, UtcOffset, macros::offset};

/// The source of the current time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The clock of the operating system.
    #[default]
    System,
    /// A clock that stands still until it is moved; holds microseconds since the Unix epoch.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: OffsetDateTime) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(to_micros(start))))
    }

    /// The current time in UTC, cut to microseconds: what PostgreSQL stores and answers show.
    pub fn now(&self) -> OffsetDateTime {
        match self {
            Self::System => from_micros(to_micros(system_now())),
            Self::Manual(micros) => from_micros(micros.load(Ordering::SeqCst)),
        }
    }

    /// The latest date that is today anywhere on Earth (UTC+14).
    pub fn latest_today(&self) -> Date {
        self.now().to_offset(FURTHEST_EAST).date()
    }

    /// Moves a manual clock; the system clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(micros) = self {
            let by = i64::try_from(by.whole_microseconds()).unwrap_or(i64::MAX);
            micros.fetch_add(by, Ordering::SeqCst);
        }
    }
}

/// The first place on Earth to see a new day: the Line Islands.
const FURTHEST_EAST: UtcOffset = offset!(+14);

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
fn system_now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn to_micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

fn from_micros(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
