//! The arithmetic of GCRA, as `gcra.lua` has it.

use std::time::Duration;

use super::Quota;

/// The answer of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    /// The time until the whole quota is there again.
    pub(super) used: Duration,
    /// The time until one request would be allowed.
    pub(super) wait: Duration,
}

impl Verdict {
    /// How many requests would be allowed at once.
    pub(super) fn remaining(&self, quota: Quota) -> u64 {
        let used = u64::try_from(self.used.as_micros()).unwrap_or(u64::MAX);
        quota.window_us().saturating_sub(used) / quota.interval_us()
    }
}

/// Counts against a bucket that would be full again at `full`; gives the new such time, where it changes.
pub(super) fn count(full: Duration, quota: Quota, cost: i32, now: Duration) -> (Duration, Verdict) {
    let interval = Duration::from_micros(quota.interval_us());
    let window = Duration::from_micros(quota.window_us());
    let full = full.max(now);
    let after = if cost > 0 { full + interval } else { full.saturating_sub(interval).max(now) };
    let beyond = after.saturating_sub(now).saturating_sub(window);
    if cost > 0 && !beyond.is_zero() {
        return (full, Verdict { allowed: false, used: full.saturating_sub(now), wait: beyond });
    }
    (after, Verdict { allowed: true, used: after.saturating_sub(now), wait: Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_can_be_used_at_once_and_is_earned_back_evenly() {
        let quota: Quota = "3/60s".parse().unwrap();
        let second = Duration::from_secs;
        let mut full = Duration::ZERO;
        let mut take = |at: u64| {
            let (after, verdict) = count(full, quota, 1, second(at));
            full = after;
            (verdict.allowed, verdict.remaining(quota), verdict.wait.as_secs())
        };
        assert_eq!(take(100), (true, 2, 0));
        assert_eq!(take(100), (true, 1, 0));
        assert_eq!(take(100), (true, 0, 0));
        assert_eq!(take(100), (false, 0, 20));
        assert_eq!(take(119), (false, 0, 1));
        assert_eq!(take(120), (true, 0, 0));
        assert_eq!(take(1000), (true, 2, 0));
    }

    #[test]
    fn what_is_taken_back_can_be_used_again() {
        let quota: Quota = "1/1s".parse().unwrap();
        let now = Duration::from_secs(5);
        let (full, _) = count(Duration::ZERO, quota, 1, now);
        let (full, verdict) = count(full, quota, -1, now);
        assert_eq!((full, verdict.remaining(quota)), (now, 1));
        let (again, _) = count(full, quota, -1, now);
        assert_eq!(again, now, "there is never more than the quota");
    }
}
