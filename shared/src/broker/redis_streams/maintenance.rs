//! The background task of a source: heartbeats, and removing what nobody needs any more.

use std::sync::Arc;

use rand::Rng as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{RedisStreamsOptions, consumer_state::ConsumerState};
use crate::platform::redis::RedisFailure;

/// Sends heartbeats and tidies until the source is closed.
pub(super) async fn maintain(state: Arc<ConsumerState>, options: RedisStreamsOptions) {
    let mut beat = interval_at(Instant::now() + options.heartbeat, options.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Processes that start together do not tidy together.
    let first_tidy = Instant::now() + options.tidy_every.mul_f64(rand::rng().random_range(0.5..1.5));
    let mut tidy = interval_at(first_tidy, options.tidy_every);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = state.closed.cancelled() => return,
            _ = beat.tick() => run_until_closed(&state, send_heartbeat(&state), "heartbeat").await,
            _ = tidy.tick() => run_until_closed(&state, tidy_stream(&state), "tidying").await,
        }
    }
}

async fn run_until_closed(
    state: &ConsumerState,
    task: impl Future<Output = Result<(), RedisFailure>>,
    what: &str,
) {
    tokio::select! {
        () = state.closed.cancelled() => {}
        done = task => {
            if let Err(error) = done {
                tracing::warn!(error.message = %error, "Redis Streams: {what} failed");
            }
        }
    }
}

/// Resets the idle time of what this process holds and still owns.
async fn send_heartbeat(state: &ConsumerState) -> Result<(), RedisFailure> {
    let held = state.in_flight().all();
    if held.is_empty() {
        return Ok(());
    }
    let mine = state.group.mine().await?;
    let (kept, gone): (Vec<String>, Vec<String>) = held.into_iter().partition(|id| mine.contains(id));
    if !gone.is_empty() {
        // Settled at this moment, taken over by another consumer while we were disconnected, or lost with the server's
        // data. Claiming them would take them away from the consumer that has them now.
        tracing::debug!(entries = gone.len(), "Redis Streams: entries are no longer this consumer's");
        state.in_flight().forget(&gone);
    }
    state.group.reset_idle(&kept).await
}

async fn tidy_stream(state: &ConsumerState) -> Result<(), RedisFailure> {
    let (trimmed, removed) = state.group.tidy().await?;
    if trimmed + removed > 0 {
        tracing::debug!(trimmed, removed, "Redis Streams: trimmed entries, removed consumers");
    }
    Ok(())
}
