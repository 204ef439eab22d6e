//! Counting in this process alone while Redis does not answer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    Quota,
    gcra::{self, BucketState},
};

/// The most keys that are held: a flood of addresses must not fill the memory.
const MAX_KEYS: usize = 100_000;

/// The time at which the whole quota of each key is there again.
#[derive(Default)]
pub(super) struct LocalBuckets(Mutex<HashMap<String, Duration>>);

impl LocalBuckets {
    /// Checks the bucket of `key`; `now` is the time since any fixed moment.
    pub(super) fn check(&self, key: &str, quota: Quota, counts: bool, now: Duration) -> BucketState {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_KEYS && !buckets.contains_key(key) {
            make_room(&mut buckets, now);
        }
        let full = buckets.get(key).copied().unwrap_or_default();
        let (full, bucket) = gcra::check(full, quota, counts, now);
        if full > now {
            buckets.insert(key.to_owned(), full);
        } else {
            buckets.remove(key);
        }
        bucket
    }
}

/// Removes the half of the buckets that are whole again soonest: those that have counted least. A client with many addresses
/// must not be able to erase how often it has guessed.
fn make_room(buckets: &mut HashMap<String, Duration>, now: Duration) {
    let mut times: Vec<Duration> = buckets.values().copied().collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let latest_forgotten = (*median).max(now);
    buckets.retain(|_, full| *full > latest_forgotten);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_addresses_does_not_fill_the_memory_and_does_not_erase_what_was_counted() {
        let (local, now) = (LocalBuckets::default(), Duration::from_secs(1));
        let (guesses, requests) = (Quota::new(2, 900), Quota::new(1000, 60));
        for _ in 0..2 {
            assert!(local.check("guesses", guesses, true, now).allowed);
        }
        for address in 0..2 * MAX_KEYS {
            local.check(&format!("address {address}"), requests, true, now);
        }
        assert!(local.0.lock().unwrap().len() <= MAX_KEYS);
        assert!(!local.check("guesses", guesses, true, now).allowed);
    }
}
