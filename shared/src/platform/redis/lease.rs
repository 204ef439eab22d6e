//! How long it is certain that a server is the current primary.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long a confirmation counts, from the moment the question was asked. So a process that is cut off together with an old
/// primary leaves it in less than two seconds, also one that was stopped itself meanwhile.
pub(super) const LEASE: Duration = Duration::from_millis(1900);

/// The time of the last confirmation.
#[derive(Debug)]
pub(super) struct Lease {
    began: Instant,
    /// Milliseconds after `began`.
    ends: AtomicU64,
}

impl Lease {
    /// A lease that has not been confirmed yet.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), ends: AtomicU64::new(0) }
    }

    /// Records that what was asked at `asked` has been confirmed.
    pub(super) fn renew(&self, asked: Instant) {
        let ends = (asked + LEASE).saturating_duration_since(self.began).as_millis();
        self.ends.fetch_max(u64::try_from(ends).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Records that it is not the primary any more.
    pub(super) fn end(&self) {
        self.ends.store(0, Ordering::Release);
    }

    pub(super) fn holds(&self) -> bool {
        self.began.elapsed().as_millis() < u128::from(self.ends.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_the_question_and_not_from_the_answer() {
        let lease = Lease::new();
        assert!(!lease.holds());
        let now = Instant::now();
        lease.renew(now.checked_sub(LEASE).unwrap_or(now));
        assert!(!lease.holds(), "the answer took too long");
        lease.renew(now);
        assert!(lease.holds());
        lease.end();
        assert!(!lease.holds());
    }
}
