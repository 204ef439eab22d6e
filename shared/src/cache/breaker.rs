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

/// What a call needs of Redis. They are counted apart, because a server can answer every read and refuse every write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Shows that Redis answers.
    Read,
    /// Shows that it also takes writes.
    Write,
}

#[derive(Debug, Default)]
struct State {
    failed_reads: u32,
    failed_writes: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    pause: Duration,
    probing: bool,
    /// What failed, and so what a probe must show.
    failed: Call,
}

/// Leave to make one call; tells the breaker how it went. A call given up in between is no verdict.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    call: Call,
    is_probe: bool,
    must_write_first: bool,
}

impl Breaker {
    /// Leave to call, unless the breaker is open.
    pub(super) fn enter(&self, call: Call, now: Instant) -> Option<Pass<'_>> {
        let mut state = self.lock();
        let (is_probe, must_write_first) = match &mut state.open {
            None => (false, false),
            Some(open) if !open.probing && now >= open.until => {
                open.probing = true;
                (true, open.failed == Call::Write && call == Call::Read)
            }
            Some(_) => return None,
        };
        Some(Pass { breaker: self, call, is_probe, must_write_first })
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
    /// Whether this call must be preceded by a cheap write: it is a read, and the probe of a breaker that was opened by
    /// failed writes.
    pub(super) fn must_write_first(&self) -> bool {
        self.must_write_first
    }

    /// Redis did what was asked.
    pub(super) fn succeeded(self) {
        let mut state = self.breaker.lock();
        // A late answer from before the breaker opened says nothing about now.
        if self.is_probe || state.open.is_none() {
            let failed_writes = match self.call {
                Call::Read if !self.is_probe => state.failed_writes,
                Call::Read | Call::Write => 0,
            };
            *state = State { failed_writes, ..State::default() };
            metrics::gauge!("cache_breaker_open").set(0.0);
        }
    }

    /// Redis did not answer, or refused.
    pub(super) fn failed(self, now: Instant) {
        let mut state = self.breaker.lock();
        match &mut state.open {
            Some(open) if self.is_probe => {
                open.pause = (open.pause * 2).min(LONGEST_PAUSE);
                open.until = now + open.pause;
                open.probing = false;
            }
            Some(_) => {}
            None => {
                let failures = match self.call {
                    Call::Read => &mut state.failed_reads,
                    Call::Write => &mut state.failed_writes,
                };
                *failures += 1;
                if *failures >= THRESHOLD {
                    let until = now + FIRST_PAUSE;
                    state.open = Some(Open { until, pause: FIRST_PAUSE, probing: false, failed: self.call });
                    metrics::gauge!("cache_breaker_open").set(1.0);
                }
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
            breaker.enter(Call::Read, now).expect("closed").failed(now);
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through_at_a_time() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        fail(&breaker, THRESHOLD - 1, now);
        breaker.enter(Call::Read, now).expect("closed").succeeded();
        fail(&breaker, THRESHOLD, now);
        assert!(breaker.enter(Call::Read, now).is_none());

        now += FIRST_PAUSE;
        let probe = breaker.enter(Call::Read, now).expect("the probe");
        assert!(breaker.enter(Call::Read, now).is_none(), "only one probe");
        probe.failed(now);
        now += FIRST_PAUSE;
        assert!(breaker.enter(Call::Read, now).is_none(), "the pause has doubled");
        now += FIRST_PAUSE;
        breaker.enter(Call::Read, now).expect("the second probe").succeeded();
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_given_up_leaves_room_for_the_next() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        fail(&breaker, THRESHOLD, now);
        now += FIRST_PAUSE;
        drop(breaker.enter(Call::Read, now).expect("the probe"));
        assert!(breaker.enter(Call::Read, now).is_some());
    }

    #[test]
    fn reads_that_succeed_do_not_hide_writes_that_fail_and_only_a_write_closes_it_again() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..THRESHOLD {
            breaker.enter(Call::Read, now).expect("closed").succeeded();
            breaker.enter(Call::Write, now).expect("closed").failed(now);
        }
        assert!(breaker.is_open());
        now += FIRST_PAUSE;
        let probe = breaker.enter(Call::Read, now).expect("the probe");
        assert!(probe.must_write_first(), "a read alone would prove nothing");
        probe.succeeded();
        assert!(!breaker.is_open());
        assert!(!breaker.enter(Call::Read, now).expect("closed").must_write_first());
    }
}
