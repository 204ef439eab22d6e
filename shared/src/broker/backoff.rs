//! Waiting between attempts: exponential, with full jitter, so that many clients do not come back in step.

use std::time::Duration;

use rand::Rng as _;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The attempts that have failed in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// How long to wait now: anything up to a bound that doubles with each call.
    pub(super) fn next_pause(&mut self) -> Duration {
        let bound = self.bound();
        self.0 = self.0.saturating_add(1);
        bound.mul_f64(rand::rng().random())
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    fn bound(&self) -> Duration {
        FIRST.saturating_mul(1_u32 << self.0.min(10)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest_and_starts_anew_after_success() {
        let mut backoff = Backoff::default();
        let mut bounds = Vec::new();
        for _ in 0..40 {
            bounds.push(backoff.bound());
            let bound = backoff.bound();
            assert!(backoff.next_pause() <= bound);
        }
        assert_eq!(bounds[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(bounds[39], LONGEST);
        backoff.reset();
        assert_eq!(backoff.bound(), FIRST);
    }
}
