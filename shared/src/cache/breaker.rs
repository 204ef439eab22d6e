//! The circuit breaker before Redis: after some failures in a row no call waits for it but one probe at a time.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The number of failures in a row that opens the breaker.
const THRESHOLD: u32 = 4;
/// How long it stays open at first; doubled by each failed probe.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, and so the longest time until the return of Redis is noticed.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Closed: calls pass. Open: calls are refused at once until the pause is over; then one call is the probe.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<BreakerState>);

/// What a call needs from Redis. Reads and writes are counted apart: a server can answer every read and refuse every write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Its success shows that Redis answers.
    Read,
    /// Its success shows that Redis also takes writes.
    Write,
}

#[derive(Debug, Default)]
struct BreakerState {
    failed_reads: u32,
    failed_writes: u32,
    open: Option<OpenBreaker>,
}

#[derive(Debug)]
struct OpenBreaker {
    until: Instant,
    pause: Duration,
    probing: bool,
    /// The kind of call that failed, and that a probe must prove.
    failed: Call,
}

/// Permission for one call, which records the outcome. A permit that is dropped without an outcome counts as neither.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    call: Call,
    is_probe: bool,
    must_write_first: bool,
}

impl Breaker {
    /// Permits a call, unless the breaker is open.
    pub(super) fn acquire_permit(&self, call: Call, now: Instant) -> Option<Permit<'_>> {
        let mut state = self.lock();
        let (is_probe, must_write_first) = match &mut state.open {
            None => (false, false),
            Some(open) if !open.probing && now >= open.until => {
                open.probing = true;
                (true, open.failed == Call::Write && call == Call::Read)
            }
            Some(_) => return None,
        };
        Some(Permit { breaker: self, call, is_probe, must_write_first })
    }

    /// Reports whether calls are refused.
    pub(super) fn is_open(&self) -> bool {
        self.lock().open.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// Reports whether a cheap write must precede this call: it is a read, and the probe of a breaker that failed writes
    /// opened.
    pub(super) fn must_write_first(&self) -> bool {
        self.must_write_first
    }

    /// Redis did what was asked.
    pub(super) fn record_success(self) {
        let mut state = self.breaker.lock();
        // A late success from before the breaker opened says nothing about the present.
        if self.is_probe || state.open.is_none() {
            let failed_writes = match self.call {
                Call::Read if !self.is_probe => state.failed_writes,
                Call::Read | Call::Write => 0,
            };
            *state = BreakerState { failed_writes, ..BreakerState::default() };
            metrics::gauge!("cache_breaker_open").set(0.0);
        }
    }

    /// Redis did not answer, or refused.
    pub(super) fn record_failure(self, now: Instant) {
        let mut state = self.breaker.lock();
        match &mut state.open {
            Some(open) if self.is_probe => {
                open.pause = (open.pause * 2).min(MAX_PAUSE);
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
                    state.open =
                        Some(OpenBreaker { until, pause: FIRST_PAUSE, probing: false, failed: self.call });
                    metrics::gauge!("cache_breaker_open").set(1.0);
                }
            }
        }
    }
}

impl Drop for Permit<'_> {
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
            breaker.acquire_permit(Call::Read, now).expect("closed").record_failure(now);
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through_at_a_time() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        fail(&breaker, THRESHOLD - 1, now);
        breaker.acquire_permit(Call::Read, now).expect("closed").record_success();
        fail(&breaker, THRESHOLD, now);
        assert!(breaker.acquire_permit(Call::Read, now).is_none());

        now += FIRST_PAUSE;
        let probe = breaker.acquire_permit(Call::Read, now).expect("the probe");
        assert!(breaker.acquire_permit(Call::Read, now).is_none(), "only one probe");
        probe.record_failure(now);
        now += FIRST_PAUSE;
        assert!(breaker.acquire_permit(Call::Read, now).is_none(), "the pause has doubled");
        now += FIRST_PAUSE;
        breaker.acquire_permit(Call::Read, now).expect("the second probe").record_success();
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_given_up_leaves_room_for_the_next() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        fail(&breaker, THRESHOLD, now);
        now += FIRST_PAUSE;
        drop(breaker.acquire_permit(Call::Read, now).expect("the probe"));
        assert!(breaker.acquire_permit(Call::Read, now).is_some());
    }

    #[test]
    fn reads_that_succeed_do_not_hide_writes_that_fail_and_only_a_write_closes_it_again() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..THRESHOLD {
            breaker.acquire_permit(Call::Read, now).expect("closed").record_success();
            breaker.acquire_permit(Call::Write, now).expect("closed").record_failure(now);
        }
        assert!(breaker.is_open());
        now += FIRST_PAUSE;
        let probe = breaker.acquire_permit(Call::Read, now).expect("the probe");
        assert!(probe.must_write_first(), "a read alone would prove nothing");
        probe.record_success();
        assert!(!breaker.is_open());
        assert!(!breaker.acquire_permit(Call::Read, now).expect("closed").must_write_first());
    }
}
