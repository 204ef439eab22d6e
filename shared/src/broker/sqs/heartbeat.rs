//! Keeps what this process holds invisible to others.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval_at};

use super::poll::Shared;

/// Runs until the source is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    // Looks twice as often as it must, so that a message is never much older than it should be.
    let every = (shared.options.heartbeat / 2).max(Duration::from_millis(10));
    let mut tick = interval_at(tokio::time::Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            _ = tick.tick() => {}
        }
        tokio::select! {
            () = shared.closed.cancelled() => return,
            () = extend(&shared) => {}
        }
    }
}

/// Extends what will be visible soon. Most messages are settled before their turn comes.
async fn extend(shared: &Shared) {
    let visibility = shared.options.visibility;
    let soon = Instant::now() + visibility.saturating_sub(shared.options.heartbeat);
    let old: Vec<(String, Duration)> = {
        let state = shared.state();
        state
            .held
            .iter()
            .filter(|(_, held)| held.until <= soon)
            .map(|(id, _)| (id.clone(), visibility))
            .collect()
    };
    if old.is_empty() {
        return;
    }
    let start = Instant::now();
    let receipts: Vec<String> = old.iter().map(|(receipt, _)| receipt.clone()).collect();
    match shared.queue.set_visibility(old).await {
        Ok(failed) => {
            let failed: HashSet<String> = failed.into_iter().map(|(receipt, _)| receipt).collect();
            let mut state = shared.state();
            for receipt in receipts {
                if failed.contains(&receipt) {
                    // Visible again by now, deleted, or held for SQS's 12 hours: no longer ours.
                    state.held.remove(&receipt);
                } else if let Some(held) = state.held.get_mut(&receipt) {
                    held.until = start + visibility;
                }
            }
        }
        Err(error) => tracing::warn!(error.message = %error, "SQS: extending the visibility failed"),
    }
}
