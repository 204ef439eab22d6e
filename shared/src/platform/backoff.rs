//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng as _;

/// Exponential backoff with full jitter: a random wait up to a bound that doubles with each attempt, so that clients that
/// failed together do not return together.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    /// Waits up to `base` after the first failed attempt, and never longer than `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The longest wait after this many failed attempts.
    pub fn bound(&self, attempts: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// A random wait after this many failed attempts.
    pub fn delay(&self, attempts: u32) -> Duration {
        self.bound(attempts).mul_f64(rand::rng().random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_its_cap() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        let bounds: Vec<u64> = [0, 1, 2, 3, 6, 7, 40, u32::MAX]
            .into_iter()
            .map(|attempts| backoff.bound(attempts).as_secs())
            .collect();
        assert_eq!(bounds, [1, 1, 2, 4, 32, 60, 60, 60]);
        assert!((0..1000).all(|attempts| backoff.delay(attempts) <= backoff.bound(attempts)));
    }
}
