//! The batches that wait for a dependency: of which part, since when, and why.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use metrics::{counter, gauge};

/// The batches that this process holds while a dependency is down. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct HeldBatches(Arc<Mutex<HeldList>>);

#[derive(Debug, Default)]
struct HeldList {
    next_id: u64,
    batches: BTreeMap<u64, HeldEntry>,
}

#[derive(Debug)]
struct HeldEntry {
    part: &'static str,
    since: Instant,
    error: String,
}

/// The held batches of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSummary {
    /// A handler's name, or `dead_letters`.
    pub part: &'static str,
    /// How many batches are held.
    pub batches: usize,
    /// For how many seconds the oldest of them has been held.
    pub seconds: u64,
    /// The last error of the oldest.
    pub error: String,
}

/// A batch that is listed as held until this is dropped.
#[derive(Debug)]
pub(super) struct HeldBatch {
    held: HeldBatches,
    id: u64,
}

impl HeldBatches {
    /// Lists a batch as held, and counts it.
    pub(super) fn add(&self, part: &'static str, error: String) -> HeldBatch {
        counter!("worker_held_total", "part" => part).increment(1);
        let mut list = self.list();
        let id = list.next_id;
        list.next_id += 1;
        list.batches.insert(id, HeldEntry { part, since: Instant::now(), error });
        set_gauge(&list, part);
        HeldBatch { held: self.clone(), id }
    }

    /// The held batches by part; empty if none are held.
    pub fn summaries(&self) -> Vec<HeldSummary> {
        let mut summaries: Vec<HeldSummary> = Vec::new();
        // The map is ordered by time, so the first of a part is the oldest.
        for HeldEntry { part, since, error } in self.list().batches.values() {
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

    fn list(&self) -> MutexGuard<'_, HeldList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldBatch {
    /// Records why the batch failed again.
    pub(super) fn set_error(&self, error: String) {
        if let Some(batch) = self.held.list().batches.get_mut(&self.id) {
            batch.error = error;
        }
    }
}

impl Drop for HeldBatch {
    fn drop(&mut self) {
        let mut list = self.held.list();
        if let Some(HeldEntry { part, .. }) = list.batches.remove(&self.id) {
            set_gauge(&list, part);
        }
    }
}

fn set_gauge(list: &HeldList, part: &'static str) {
    let batches = list.batches.values().filter(|held| held.part == part).count();
    #[expect(clippy::cast_precision_loss, reason = "a handful of batches")]
    gauge!("worker_held_batches", "part" => part).set(batches as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_summed_by_part_with_the_error_of_the_oldest() {
        let held = HeldBatches::default();
        let first = held.add("history", "refused".to_owned());
        let second = held.add("history", "refused".to_owned());
        let letter = held.add("dead_letters", "silent".to_owned());
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
