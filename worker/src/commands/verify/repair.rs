//! Repairs differences from what the stores still hold.

use std::collections::HashMap;

use anyhow::Context as _;
use shared::domain::{
    event::{Envelope, Event},
    order::{Order, OrderId, OrderKey},
};
use sqlx::Connection as _;

use super::{cache::find_fault, difference::Difference, findings::Stores};
use crate::{
    cache_debts::current_entry,
    commands::{
        connect::acquire_connection,
        publisher::{Published, Publisher},
        screen::{format_count, print_line, progress_bar},
    },
    config::WorkerConfig,
    store::{history, log, orders},
};

/// Versions or entries of a batch.
const BATCH: usize = 500;
/// How often the history is asked for what was published, 250 ms apart: 30 s.
const HISTORY_CHECKS: usize = 120;

/// Publishes what the history lacks, replaces what is wrong in it, and corrects the cache.
pub(super) async fn repair_differences(
    stores: &Stores,
    config: &WorkerConfig,
    differences: &[Difference],
) -> anyhow::Result<()> {
    let (mut missing, mut wrong, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    for difference in differences {
        match difference {
            Difference::NotRecorded { order, version, .. } => {
                missing.extend(OrderId::try_from(*order).map(|order| (order, *version)));
            }
            Difference::RecordDiffers { order, version, .. } => {
                wrong.extend(OrderId::try_from(*order).map(|order| (order, *version)));
            }
            Difference::Cache { order, .. } => cached.push(*order),
            _ => {}
        }
    }
    correct_history(stores, &wrong).await?;
    correct_cache(stores, &cached).await?;
    publish_missing(stores, config, &missing).await
}

/// Publishes events that the history lacks, so that other consumers receive them, too.
async fn publish_missing(
    stores: &Stores,
    config: &WorkerConfig,
    missing: &[(OrderId, i64)],
) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut connection = acquire_connection(&stores.db).await?;
    let mut publisher = Publisher::connect(&config.broker, None).await?;
    let progress =
        progress_bar(i64::try_from(missing.len()).unwrap_or(i64::MAX), "publishing what is missing");
    for versions in missing.chunks(BATCH) {
        let events = log::load_versions(&mut connection, versions).await?;
        let events: Vec<Envelope> = events.into_iter().map(|logged| logged.envelope).collect();
        for (event, published) in events.iter().zip(publisher.publish_batch(&events).await?) {
            if let Published::Rejected(reason) = published {
                print_line(&format!("event {} was refused: {reason}", event.id))?;
            }
        }
        progress.inc(versions.len() as u64);
    }
    progress.finish_and_clear();
    publisher.close().await;
    print_line(&format!("published {} again", format_count(missing.len(), "event")))?;

    // The workers record them.
    for _ in 0..HISTORY_CHECKS {
        if usize::try_from(history::count_recorded(&mut connection, missing).await?) == Ok(missing.len()) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    print_line("not all of them are recorded yet; is a worker running?")
}

async fn correct_history(stores: &Stores, wrong: &[(OrderId, i64)]) -> anyhow::Result<()> {
    let mut connection = acquire_connection(&stores.db).await?;
    for versions in wrong.chunks(BATCH) {
        for logged in log::load_versions(&mut connection, versions).await? {
            let event = Event::read(&logged.envelope.body.into())
                .with_context(|| format!("event {} of the log cannot be read", logged.envelope.id))?;
            let mut transaction = connection.begin().await?;
            history::replace_version(&mut transaction, &event).await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}

/// Removes wrong entries unless they have changed since, and replaces those that are merely old.
async fn correct_cache(stores: &Stores, keys: &[OrderKey]) -> anyhow::Result<()> {
    let mut connection = acquire_connection(&stores.db).await?;
    for keys in keys.chunks(BATCH) {
        let entries = stores.cache.entries(keys).await?;
        let found = orders::load_orders(&mut connection, keys).await?;
        let found: HashMap<OrderKey, Order> = found.into_iter().map(|order| (order.key(), order)).collect();
        for (key, entry) in keys.iter().zip(entries) {
            let Some(entry) = entry else { continue };
            if find_fault(&entry, found.get(key)).is_some() {
                stores.cache.remove_if_unchanged(*key, &entry).await?;
            }
        }
        // An entry that was written meanwhile is newer and stays.
        let writes = found.values().map(|order| current_entry(order, true)).collect::<Vec<_>>();
        stores.cache.put(&writes).await?;
    }
    Ok(())
}
