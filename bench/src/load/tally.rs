//! What happened to the requests of a load: counted while it runs, so that it can be shown live.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::connection::Answer;
use crate::stats::{Latencies, latencies, record};

/// Counts and latencies; all of it can be read while it grows.
#[derive(Debug)]
pub(crate) struct Tally {
    due: AtomicU64,
    sent: AtomicU64,
    answers: Mutex<Answers>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// Latencies of the requests of each kind.
    pub(crate) latency: BTreeMap<&'static str, Latencies>,
    /// How many answers there were of each outcome: a status code, or `timed out`, or `connection broke`.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Latencies since this was last taken.
    recent: Latencies,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let answers = Answers { latency: BTreeMap::new(), outcomes: BTreeMap::new(), recent: latencies() };
        Self { due: AtomicU64::new(0), sent: AtomicU64::new(0), answers: Mutex::new(answers) }
    }

    /// A request's time has come.
    pub(super) fn due(&self) {
        self.due.fetch_add(1, Ordering::Relaxed);
    }

    /// It is being sent.
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// It has its outcome.
    pub(super) fn answered(&self, kind: &'static str, latency: Duration, answer: &Answer) {
        let outcome = match answer {
            Answer::Http(status, _) => status.as_u16().to_string(),
            Answer::TimedOut => "timed out".to_owned(),
            Answer::Broken => "connection broke".to_owned(),
        };
        let mut answers = self.lock();
        *answers.outcomes.entry(outcome).or_default() += 1;
        record(answers.latency.entry(kind).or_insert_with(latencies), latency);
        record(&mut answers.recent, latency);
    }

    /// How many requests are due and not yet sent.
    pub(crate) fn waiting(&self) -> u64 {
        self.due.load(Ordering::Relaxed).saturating_sub(self.sent.load(Ordering::Relaxed))
    }

    /// All of it so far.
    pub(crate) fn answers(&self) -> Answers {
        self.lock().clone()
    }

    /// The latencies since the last call.
    pub(crate) fn take_recent(&self) -> Latencies {
        std::mem::replace(&mut self.lock().recent, latencies())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// How many of them were 503 or 429: load that was shed on purpose.
    pub(crate) fn shed(&self) -> u64 {
        ["503", "429"].iter().filter_map(|status| self.outcomes.get(*status)).sum()
    }

    /// How many failed in any other way: 5xx, no answer in time, or a broken connection.
    pub(crate) fn failed(&self) -> u64 {
        let bad = |outcome: &str| !outcome.starts_with(['2', '3', '4']) && outcome != "503";
        self.outcomes.iter().filter(|(outcome, _)| bad(outcome)).map(|(_, count)| count).sum()
    }

    /// Refusals that a correct client does not provoke: every 4xx but 429.
    pub(crate) fn refused(&self) -> u64 {
        let refused = |outcome: &str| outcome.starts_with('4') && outcome != "429";
        self.outcomes.iter().filter(|(outcome, _)| refused(outcome)).map(|(_, count)| count).sum()
    }

    /// Latencies of all kinds together.
    pub(crate) fn all(&self) -> Latencies {
        let mut all = latencies();
        for latency in self.latency.values() {
            // They have the same bounds.
            let _fits = all.add(latency);
        }
        all
    }

    /// The outcomes in words, such as `200: 12, 201: 5`.
    pub(crate) fn outcomes(&self) -> String {
        let each: Vec<String> =
            self.outcomes.iter().map(|(outcome, count)| format!("{outcome}: {count}")).collect();
        each.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use hyper::StatusCode;

    use super::{Answer, Tally};

    #[test]
    fn shed_load_is_told_apart_from_failures_and_refusals() {
        let tally = Tally::new();
        for status in [200, 201, 503, 429, 500, 404] {
            let answer = Answer::Http(StatusCode::from_u16(status).unwrap(), Bytes::new());
            tally.answered("read", Duration::from_millis(1), &answer);
        }
        tally.answered("read", Duration::from_millis(1), &Answer::TimedOut);
        let answers = tally.answers();
        assert_eq!((answers.count(), answers.shed(), answers.failed(), answers.refused()), (7, 2, 2, 1));
        assert_eq!(answers.all().len(), 7);
    }
}
