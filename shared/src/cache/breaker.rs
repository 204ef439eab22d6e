//! The breaker before Redis: after some failures in a row nobody waits for it any more but one probe at a time.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 4;
/// How long it stays open at first; doubled by each failed probe.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long it stays open at most, and so how late the return of Redis may be noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Closed: calls pass. Open: calls are refused at once until the pause is over; then one call is the probe.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    pause: Duration,
    probing: bool,
}

/// Leave to make one call; tells the breaker how it went. A call given up in between is no verdict.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    /// Leave to call, unless the breaker is open.
    pub(super) fn enter(&self, now: Instant) -> Option<Pass<'_>> {
        let mut state = self.lock();
        let is_probe = match &mut state.open {
            None => false,
            Some(open) if !open.probing && now >= open.until => {
                open.probing = true;
                true
            }
            Some(_) => return None,
        };
        Some(Pass { breaker: self, is_probe })
    }

    /// Whether calls are refused.
    pub(super) fn is_open(&self) -> bool {
        self.lock().open.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Redis answered.
    pub(super) fn succeeded(self) {
        let mut state = self.breaker.lock();
        // A late answer from before the breaker opened says nothing about now.
        if self.is_probe || state.open.is_none() {
            *state = State::default();
            metrics::gauge!("cache_breaker_open").set(0.0);
        }
    }

    /// Redis did not answer. Says whether this very failure opened the breaker, or kept it open.
    pub(super) fn failed(self, now: Instant) -> bool {
        let mut state = self.breaker.lock();
        match &mut state.open {
            Some(open) if self.is_probe => {
                open.pause = (open.pause * 2).min(LONGEST_PAUSE);
                open.until = now + open.pause;
                open.probing = false;
                true
            }
            Some(_) => false,
            None => {
                state.failures += 1;
                let opens = state.failures >= THRESHOLD;
                if opens {
                    let until = now + FIRST_PAUSE;
                    state.open = Some(Open { until, pause: FIRST_PAUSE, probing: false });
                    metrics::gauge!("cache_breaker_open").set(1.0);
                }
                opens
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe
            && let Some(open) = &mut self.breaker.lock().open
        {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u32, now: Instant) {
        for _ in 0..times {
            breaker.enter(now).expect("closed").failed(now);
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through_at_a_time() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        fail(&breaker, THRESHOLD - 1, now);
        breaker.enter(now).expect("closed").succeeded();
        fail(&breaker, THRESHOLD, now);
        assert!(breaker.enter(now).is_none());

        now += FIRST_PAUSE;
        let probe = breaker.enter(now).expect("the probe");
        assert!(breaker.enter(now).is_none(), "only one probe");
        assert!(probe.failed(now));
        now += FIRST_PAUSE;
        assert!(breaker.enter(now).is_none(), "the pause has doubled");
        now += FIRST_PAUSE;
        breaker.enter(now).expect("the second probe").succeeded();
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_given_up_leaves_room_for_the_next() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        fail(&breaker, THRESHOLD, now);
        now += FIRST_PAUSE;
        drop(breaker.enter(now).expect("the probe"));
        assert!(breaker.enter(now).is_some());
    }
}
