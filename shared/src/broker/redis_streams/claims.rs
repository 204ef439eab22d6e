//! Entries that were handed out before: on their way, held back, or of a consumer that is gone.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{entries::Entry, keeper, reader::Reader, source::RedisStreamsSource};
use crate::{broker::Delivery, platform::redis::RedisFailure};

impl RedisStreamsSource {
    /// Entries that were on their way to a `receive` that was cancelled or failed.
    pub(super) async fn adopt(&self, max: usize) -> Result<Vec<Delivery>, RedisFailure> {
        let mine = self.shared.group.mine().await?;
        let mut unknown: Vec<String> = {
            let ledger = self.shared.ledger();
            mine.into_iter().filter(|id| !ledger.holds(id)).collect()
        };
        unknown.truncate(max);
        self.next_attempt(unknown).await
    }

    /// Entries whose delay is over.
    pub(super) async fn take_due(&self, max: usize) -> Result<Vec<Delivery>, RedisFailure> {
        let due = self.shared.ledger().due(Instant::now(), max);
        self.next_attempt(due).await
    }

    /// Claims those of `ids` that are still this consumer's, each for its next attempt.
    async fn next_attempt(&self, ids: Vec<String>) -> Result<Vec<Delivery>, RedisFailure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let pending = self.shared.group.pending(&ids).await?;
        let mine: Vec<(String, u32)> = ids
            .iter()
            .zip(pending)
            .filter_map(|(id, pending)| {
                let (consumer, attempts) = pending?;
                (consumer == self.shared.group.consumer()).then(|| (id.clone(), attempts))
            })
            .collect();
        let claimed: Vec<String> = mine.iter().map(|(id, _)| id.clone()).collect();
        let entries = if claimed.is_empty() { Vec::new() } else { self.shared.group.claim(&claimed).await? };
        // What is another consumer's by now, or was deleted from the stream, will not come again here.
        self.shared.ledger().lose(&ids);
        let attempts: HashMap<String, u32> = mine.into_iter().collect();
        let deliver = |entry: Entry| {
            let attempt = attempts.get(&entry.id).map_or(1, |before| before.saturating_add(1));
            entry.into_delivery(attempt)
        };
        Ok(entries.into_iter().map(deliver).collect())
    }

    /// Entries of consumers that are gone. Goes once around all pending entries over as many calls as it takes.
    pub(super) async fn reclaim(
        &self,
        reader: &mut Reader,
        max: usize,
    ) -> Result<Vec<Delivery>, RedisFailure> {
        let group = &self.shared.group;
        let (cursor, mut entries) = group.auto_claim(self.options.min_idle, &reader.cursor, max).await?;
        // With more to look through, go on at once; at the end, begin again after a pause.
        reader.cursor = cursor.unwrap_or_else(|| "0-0".to_owned());
        if reader.cursor == "0-0" {
            reader.next_reclaim = Instant::now() + self.options.reclaim_every;
        }
        {
            // A late heartbeat of our own makes an entry that is being handled look idle.
            let ledger = self.shared.ledger();
            entries.retain(|entry| !ledger.holds(&entry.id));
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
        let counts = group.pending(&ids).await?;
        tracing::info!(entries = ids.len(), "Redis Streams: took over entries of a consumer that is gone");
        let deliver = |(entry, count): (Entry, Option<(String, u32)>)| {
            entry.into_delivery(count.map_or(1, |(_, attempts)| attempts))
        };
        Ok(entries.into_iter().zip(counts).map(deliver).collect())
    }

    /// Has others take over at once what is still held, and what is held back when its time has come.
    pub(super) async fn give_back(&self) -> Result<(), RedisFailure> {
        let now = Instant::now();
        let mine = self.shared.group.mine().await?;
        let idle: Vec<(String, Duration)> = {
            let ledger = self.shared.ledger();
            mine.into_iter()
                .map(|id| {
                    let remaining =
                        ledger.due_of(&id).map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
                    let idle = keeper::idle_for(remaining, self.options.min_idle);
                    (id, idle)
                })
                .collect()
        };
        self.shared.group.give_back(&idle).await?;
        self.shared.group.leave().await
    }
}
