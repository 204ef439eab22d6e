//! Entries that were handed out before: to an interrupted `receive`, delayed, or to a consumer that is gone.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{RedisStreamsOptions, consumer_state::ConsumerState, entries::StreamEntry};
use crate::{broker::Delivery, platform::redis::RedisFailure};

/// Where `XAUTOCLAIM` begins, and what it returns at the end.
const START: &str = "0-0";

/// The search for entries of consumers that are gone.
#[derive(Debug)]
pub(super) struct Reclaim {
    min_idle: Duration,
    every: Duration,
    /// Where the search continues.
    position: String,
    next: Instant,
}

impl Reclaim {
    pub(super) fn new(options: &RedisStreamsOptions) -> Self {
        Self {
            min_idle: options.min_idle,
            every: options.reclaim_every,
            position: START.to_owned(),
            next: Instant::now(),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Takes over up to `max` entries of consumers that are gone. One search through all pending entries can take several calls.
    pub(super) async fn take_over(
        &mut self,
        state: &ConsumerState,
        max: usize,
    ) -> Result<Vec<Delivery>, RedisFailure> {
        let group = &state.group;
        let (position, mut entries) = group.auto_claim(self.min_idle, &self.position, max).await?;
        // If there is more to search, continue at once; at the end, begin again after a pause.
        self.position = position.unwrap_or_else(|| START.to_owned());
        if self.position == START {
            self.next = Instant::now() + self.every;
        }
        {
            // After a late heartbeat of our own, an entry that is being handled looks idle.
            let in_flight = state.in_flight();
            entries.retain(|entry| !in_flight.holds(&entry.id));
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
        let counts = group.pending(&ids).await?;
        tracing::info!(entries = ids.len(), "Redis Streams: took over entries of a consumer that is gone");
        let deliver = |(entry, count): (StreamEntry, Option<(String, u32)>)| {
            entry.into_delivery(count.map_or(1, |(_, attempts)| attempts))
        };
        Ok(entries.into_iter().zip(counts).map(deliver).collect())
    }
}

/// Takes entries that were on their way to a `receive` that was cancelled or failed.
pub(super) async fn recover_unseen(state: &ConsumerState, max: usize) -> Result<Vec<Delivery>, RedisFailure> {
    let mine = state.group.mine().await?;
    let mut unseen: Vec<String> = {
        let in_flight = state.in_flight();
        mine.into_iter().filter(|id| !in_flight.holds(id)).collect()
    };
    unseen.truncate(max);
    claim_next_attempt(state, unseen).await
}

/// Takes entries whose delay is over.
pub(super) async fn take_due(state: &ConsumerState, max: usize) -> Result<Vec<Delivery>, RedisFailure> {
    let due = state.in_flight().due(Instant::now(), max);
    claim_next_attempt(state, due).await
}

/// Claims those of `ids` that are still this consumer's, each for its next attempt.
async fn claim_next_attempt(state: &ConsumerState, ids: Vec<String>) -> Result<Vec<Delivery>, RedisFailure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let pending = state.group.pending(&ids).await?;
    let mine: Vec<(String, u32)> = ids
        .iter()
        .zip(pending)
        .filter_map(|(id, pending)| {
            let (consumer, attempts) = pending?;
            (consumer == state.group.consumer()).then(|| (id.clone(), attempts))
        })
        .collect();
    let claimed: Vec<String> = mine.iter().map(|(id, _)| id.clone()).collect();
    let entries = if claimed.is_empty() { Vec::new() } else { state.group.claim(&claimed).await? };
    // An entry that is another consumer's by now, or was deleted from the stream, does not come again here.
    state.in_flight().forget(&ids);
    let attempts: HashMap<String, u32> = mine.into_iter().collect();
    let deliver = |entry: StreamEntry| {
        let attempt = attempts.get(&entry.id).map_or(1, |before| before.saturating_add(1));
        entry.into_delivery(attempt)
    };
    Ok(entries.into_iter().map(deliver).collect())
}

/// Has other consumers take over the entries that this one holds: delayed ones when they are due, the others at once.
pub(super) async fn release_entries(state: &ConsumerState, min_idle: Duration) -> Result<(), RedisFailure> {
    let now = Instant::now();
    let mine = state.group.mine().await?;
    let idle: Vec<(String, Duration)> = {
        let in_flight = state.in_flight();
        mine.into_iter()
            .map(|id| {
                let remaining =
                    in_flight.due_of(&id).map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
                (id, min_idle.saturating_sub(remaining))
            })
            .collect()
    };
    state.group.set_idle(&idle).await?;
    state.group.leave().await
}
