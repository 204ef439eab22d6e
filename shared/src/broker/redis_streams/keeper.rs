//! What goes on in the background as long as a source lives: heartbeats and tidying.

use std::{collections::HashSet, sync::Arc, time::Duration};

use rand::Rng as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{RedisStreamsOptions, source::Shared};
use crate::platform::redis::RedisFailure;

/// Runs until the source is closed.
pub(super) async fn run(shared: Arc<Shared>, options: RedisStreamsOptions) {
    let mut beat = interval_at(Instant::now() + options.heartbeat, options.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Processes that start together do not tidy together.
    let first_tidy = Instant::now() + options.tidy_every.mul_f64(rand::rng().random_range(0.5..1.5));
    let mut tidy = interval_at(first_tidy, options.tidy_every);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            _ = beat.tick() => until_closed(&shared, heartbeat(&shared), "heartbeat").await,
            _ = tidy.tick() => until_closed(&shared, trim(&shared), "tidying").await,
        }
    }
}

async fn until_closed(shared: &Shared, step: impl Future<Output = Result<(), RedisFailure>>, what: &str) {
    tokio::select! {
        () = shared.closed.cancelled() => {}
        done = step => {
            if let Err(error) = done {
                tracing::warn!(error.message = %error, "Redis Streams: {what} failed");
            }
        }
    }
}

/// Resets the idle time of what this process holds and still owns.
async fn heartbeat(shared: &Shared) -> Result<(), RedisFailure> {
    let held = shared.ledger().all();
    if held.is_empty() {
        return Ok(());
    }
    let mine = shared.group.mine().await?;
    let (kept, gone): (Vec<String>, HashSet<String>) = {
        let (kept, gone): (Vec<_>, Vec<_>) = held.into_iter().partition(|id| mine.contains(id));
        (kept, gone.into_iter().collect())
    };
    if !gone.is_empty() {
        // Settled in this moment, taken over by another consumer after we had been out of touch, or lost with the
        // server's data. To claim them would only take them from whoever has them now.
        tracing::debug!(entries = gone.len(), "Redis Streams: entries are no longer this consumer's");
        shared.ledger().lose(&gone);
    }
    shared.group.touch(&kept).await
}

async fn trim(shared: &Shared) -> Result<(), RedisFailure> {
    let (trimmed, removed) = shared.group.tidy().await?;
    if trimmed + removed > 0 {
        tracing::debug!(trimmed, removed, "Redis Streams: trimmed entries, removed consumers");
    }
    Ok(())
}

/// How long an entry that is given back shall seem to have been idle, so that others take it over after `remaining`.
pub(super) fn idle_for(remaining: Duration, min_idle: Duration) -> Duration {
    min_idle.saturating_sub(remaining)
}
