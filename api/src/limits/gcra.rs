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

/// Asks a bucket that would be full again at `full` whether one more request is allowed. Gives the new such time, which
/// changes if the request is allowed and `counts`.
pub(super) fn ask(full: Duration, quota: Quota, counts: bool, now: Duration) -> (Duration, Verdict) {
    let full = full.max(now);
    let after = full + Duration::from_micros(quota.interval_us());
    let wait = after.saturating_sub(now).saturating_sub(Duration::from_micros(quota.window_us()));
    let allowed = wait.is_zero();
    let full = if allowed && counts { after } else { full };
    (full, Verdict { allowed, used: full.saturating_sub(now), wait })
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
            let (after, verdict) = ask(full, quota, true, second(at));
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
    fn a_look_counts_nothing_and_says_what_a_request_would_be_told() {
        let quota: Quota = "1/1s".parse().unwrap();
        let now = Duration::from_secs(5);
        let (full, verdict) = ask(Duration::ZERO, quota, false, now);
        assert_eq!((full, verdict.allowed, verdict.remaining(quota)), (now, true, 1));
        let (full, _) = ask(full, quota, true, now);
        let (again, verdict) = ask(full, quota, false, now);
        assert_eq!((again, verdict.allowed, verdict.wait), (full, false, Duration::from_secs(1)));
    }
}
