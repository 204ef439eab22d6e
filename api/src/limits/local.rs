//! Counting in this process alone, while Redis does not answer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    Quota,
    gcra::{self, Verdict},
};

/// Keys held at most; a flood of addresses must not fill the memory.
const MAX_KEYS: usize = 100_000;

/// For each key, when its whole quota is there again.
#[derive(Default)]
pub(super) struct Local(Mutex<HashMap<String, Duration>>);

impl Local {
    /// Counts against the bucket of `key`; `now` is the time since this process began.
    pub(super) fn count(&self, key: &str, quota: Quota, cost: i32, now: Duration) -> Verdict {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_KEYS && !buckets.contains_key(key) {
            // A full bucket is the same as none.
            buckets.retain(|_, full| *full > now);
            if buckets.len() >= MAX_KEYS {
                buckets.clear();
            }
        }
        let full = buckets.get(key).copied().unwrap_or_default();
        let (full, verdict) = gcra::count(full, quota, cost, now);
        if full > now {
            buckets.insert(key.to_owned(), full);
        } else {
            buckets.remove(key);
        }
        verdict
    }
}
