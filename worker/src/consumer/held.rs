//! Batches that wait for a dependency: for whom, since when, and why.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use metrics::{counter, gauge};

/// The batches that this process holds while a dependency is down. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct HeldBatches(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    batches: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    part: &'static str,
    since: Instant,
    error: String,
}

/// What one part waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSummary {
    /// A handler's name, or `dead_letters`.
    pub part: &'static str,
    /// How many batches it holds.
    pub batches: usize,
    /// For how many seconds the first of them has waited.
    pub seconds: u64,
    /// Why that one failed last.
    pub error: String,
}

/// A batch that is held until this is dropped.
#[derive(Debug)]
pub(super) struct HeldBatch {
    held: HeldBatches,
    id: u64,
}

impl HeldBatches {
    /// Holds a batch, and counts it.
    pub(super) fn hold(&self, part: &'static str, error: String) -> HeldBatch {
        counter!("worker_held_total", "part" => part).increment(1);
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        inner.batches.insert(id, Waiting { part, since: Instant::now(), error });
        set_gauge(&inner, part);
        HeldBatch { held: self.clone(), id }
    }

    /// What each part waits for; empty if nothing is held.
    pub fn summaries(&self) -> Vec<HeldSummary> {
        let mut summaries: Vec<HeldSummary> = Vec::new();
        // In the order in which they were held, so the first of a part is the oldest.
        for Waiting { part, since, error } in self.inner().batches.values() {
            match summaries.iter_mut().find(|summary| summary.part == *part) {
                Some(summary) => summary.batches += 1,
                None => summaries.push(HeldSummary {
                    part,
                    batches: 1,
                    seconds: since.elapsed().as_secs(),
                    error: error.clone(),
                }),
            }
        }
        summaries
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldBatch {
    /// It was tried again in vain.
    pub(super) fn set_error(&self, error: String) {
        if let Some(waiting) = self.held.inner().batches.get_mut(&self.id) {
            waiting.error = error;
        }
    }
}

impl Drop for HeldBatch {
    fn drop(&mut self) {
        let mut inner = self.held.inner();
        if let Some(Waiting { part, .. }) = inner.batches.remove(&self.id) {
            set_gauge(&inner, part);
        }
    }
}

fn set_gauge(inner: &Inner, part: &'static str) {
    let batches = inner.batches.values().filter(|waiting| waiting.part == part).count();
    #[expect(clippy::cast_precision_loss, reason = "a handful of batches")]
    gauge!("worker_held_batches", "part" => part).set(batches as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_summed_by_part_with_the_error_of_the_oldest() {
        let held = HeldBatches::default();
        let first = held.hold("history", "refused".to_owned());
        let second = held.hold("history", "refused".to_owned());
        let letter = held.hold("dead_letters", "silent".to_owned());
        first.set_error("locked".to_owned());
        let summary =
            |part, batches, error: &str| HeldSummary { part, batches, seconds: 0, error: error.to_owned() };
        assert_eq!(held.summaries(), [summary("history", 2, "locked"), summary("dead_letters", 1, "silent")]);
        drop((first, letter));
        assert_eq!(held.summaries(), [summary("history", 1, "refused")]);
        drop(second);
        assert_eq!(held.summaries(), []);
    }
}
