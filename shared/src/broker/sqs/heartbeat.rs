//! Keeps the messages that this process holds invisible to others.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval_at};

use super::receiver::SqsReceiver;

/// Extends the visibility time-out of held messages until the source is closed.
pub(super) async fn keep_invisible(receiver: Arc<SqsReceiver>) {
    // Twice as often as necessary, so that no message is extended much later than it should be.
    let every = (receiver.options.heartbeat / 2).max(Duration::from_millis(10));
    let mut tick = interval_at(tokio::time::Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = receiver.closed.cancelled() => return,
            _ = tick.tick() => {}
        }
        tokio::select! {
            () = receiver.closed.cancelled() => return,
            () = extend_visibility(&receiver) => {}
        }
    }
}

/// Extends the messages that will be visible soon. Most messages are settled before.
async fn extend_visibility(receiver: &SqsReceiver) {
    let visibility = receiver.options.visibility;
    let soon = Instant::now() + visibility.saturating_sub(receiver.options.heartbeat);
    let old: Vec<(String, Duration)> = {
        let messages = receiver.messages();
        messages
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
    match receiver.queue.set_visibility(old).await {
        Ok(failed) => {
            let failed: HashSet<String> = failed.into_iter().map(|(receipt, _)| receipt).collect();
            let mut messages = receiver.messages();
            for receipt in receipts {
                if failed.contains(&receipt) {
                    // Visible again, deleted, or held for the 12 hours that SQS allows: no longer ours.
                    messages.held.remove(&receipt);
                } else if let Some(held) = messages.held.get_mut(&receipt) {
                    held.until = start + visibility;
                }
            }
        }
        Err(error) => tracing::warn!(error.message = %error, "SQS: extending the visibility failed"),
    }
}
