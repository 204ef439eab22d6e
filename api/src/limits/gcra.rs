//! The arithmetic of GCRA, the same as in `gcra.lua`.

use std::time::Duration;

use super::Quota;

/// What a bucket allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketState {
    pub(super) allowed: bool,
    /// The time until the whole quota is there again: the part of it that is used.
    pub(super) used: Duration,
    /// The time until one request would be allowed.
    pub(super) wait: Duration,
}

impl BucketState {
    /// How many more requests are allowed at once.
    pub(super) fn remaining(&self, quota: Quota) -> u64 {
        let used = u64::try_from(self.used.as_micros()).unwrap_or(u64::MAX);
        quota.window_us().saturating_sub(used) / quota.interval_us()
    }
}

/// Checks whether a bucket that is whole again at `full` allows one more request. Returns the new such time, which changes
/// if the request is allowed and `counts`. A quota that was changed since is used up at most: it is earned back at its own pace.
pub(super) fn check(full: Duration, quota: Quota, counts: bool, now: Duration) -> (Duration, BucketState) {
    let window = Duration::from_micros(quota.window_us());
    let full = full.clamp(now, now + window);
    let after = full + Duration::from_micros(quota.interval_us());
    let wait = after.saturating_sub(now).saturating_sub(window);
    let allowed = wait.is_zero();
    let full = if allowed && counts { after } else { full };
    (full, BucketState { allowed, used: full.saturating_sub(now), wait })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_can_be_used_at_once_and_is_earned_back_evenly() {
        let quota: Quota = "3/60s".parse().unwrap();
        let second = Duration::from_secs;
        let mut full = Duration::ZERO;
        let mut count = |at: u64| {
            let (after, bucket) = check(full, quota, true, second(at));
            full = after;
            (bucket.allowed, bucket.remaining(quota), bucket.wait.as_secs())
        };
        assert_eq!(count(100), (true, 2, 0));
        assert_eq!(count(100), (true, 1, 0));
        assert_eq!(count(100), (true, 0, 0));
        assert_eq!(count(100), (false, 0, 20));
        assert_eq!(count(119), (false, 0, 1));
        assert_eq!(count(120), (true, 0, 0));
        assert_eq!(count(1000), (true, 2, 0));
    }

    #[test]
    fn a_quota_that_replaces_a_used_up_one_is_earned_back_at_its_own_pace() {
        let now = Duration::from_secs(5);
        let (old, new): (Quota, Quota) = ("1/86400s".parse().unwrap(), "60/60s".parse().unwrap());
        let (full, _) = check(Duration::ZERO, old, true, now);
        let (full, bucket) = check(full, new, true, now);
        assert_eq!((bucket.allowed, bucket.wait), (false, Duration::from_secs(1)));
        let (_, bucket) = check(full, new, true, now + bucket.wait);
        assert!(bucket.allowed);
    }

    #[test]
    fn a_peek_counts_nothing_and_returns_what_a_request_would_be_told() {
        let quota: Quota = "1/1s".parse().unwrap();
        let now = Duration::from_secs(5);
        let (full, bucket) = check(Duration::ZERO, quota, false, now);
        assert_eq!((full, bucket.allowed, bucket.remaining(quota)), (now, true, 1));
        let (full, _) = check(full, quota, true, now);
        let (again, bucket) = check(full, quota, false, now);
        assert_eq!((again, bucket.allowed, bucket.wait), (full, false, Duration::from_secs(1)));
    }
}
