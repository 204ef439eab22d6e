//! Mends what the stores themselves can tell.

use std::collections::HashMap;

use anyhow::Context as _;
use shared::domain::{
    event::{Envelope, Event},
    order::{Order, OrderId},
};
use sqlx::Connection as _;

use super::{Difference, Stores, cache::fault};
use crate::{
    cache_debts::current,
    commands::{
        connection,
        publisher::{Published, Publisher},
        screen::{bar, counted, say},
    },
    config::WorkerConfig,
    store::{history, log, orders},
};

/// Versions or entries in one go.
const BATCH: usize = 500;
/// So often, a quarter of a second apart, the history is asked for what was published.
const LOOKS: usize = 120;

/// Publishes what the history lacks, corrects what it has wrong, and sets the cache right.
pub(super) async fn repair(
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
    mend_cache(stores, &cached).await?;
    publish(stores, config, &missing).await
}

/// Events that the history lacks go the way of all events, so that other consumers get them too.
async fn publish(stores: &Stores, config: &WorkerConfig, missing: &[(OrderId, i64)]) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut connection = connection(&stores.db).await?;
    let mut publisher = Publisher::connect(&config.broker, None).await?;
    let progress = bar(i64::try_from(missing.len()).unwrap_or(i64::MAX), "publishing what is missing");
    for versions in missing.chunks(BATCH) {
        let events = log::of_versions(&mut connection, versions).await?;
        let events: Vec<Envelope> = events.into_iter().map(|logged| logged.envelope).collect();
        for (event, published) in events.iter().zip(publisher.publish(&events).await?) {
            if let Published::Rejected(reason) = published {
                say(&format!("event {} was refused: {reason}", event.id))?;
            }
        }
        progress.inc(versions.len() as u64);
    }
    progress.finish_and_clear();
    publisher.close().await;
    say(&format!("published {} again", counted(missing.len(), "event")))?;

    // Workers record them in their own time.
    for _ in 0..LOOKS {
        if usize::try_from(history::count(&mut connection, missing).await?) == Ok(missing.len()) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    say("not all of them are recorded yet; is a worker running?")
}

async fn correct_history(stores: &Stores, wrong: &[(OrderId, i64)]) -> anyhow::Result<()> {
    let mut connection = connection(&stores.db).await?;
    for versions in wrong.chunks(BATCH) {
        for logged in log::of_versions(&mut connection, versions).await? {
            let event = Event::read(&logged.envelope.body.into())
                .with_context(|| format!("event {} of the log cannot be read", logged.envelope.id))?;
            let mut transaction = connection.begin().await?;
            history::correct(&mut transaction, &event).await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}

/// Wrong entries are removed as far as they still are what was seen, and entries that are merely old are raised.
async fn mend_cache(stores: &Stores, ids: &[OrderId]) -> anyhow::Result<()> {
    let mut connection = connection(&stores.db).await?;
    for ids in ids.chunks(BATCH) {
        let entries = stores.cache.entries(ids).await?;
        let found = orders::by_ids(&mut connection, ids).await?;
        let found: HashMap<OrderId, Order> = found.into_iter().map(|order| (order.id, order)).collect();
        for (id, entry) in ids.iter().zip(entries) {
            let Some(entry) = entry else { continue };
            if fault(&entry, found.get(id)).is_some() {
                stores.cache.remove_if_unchanged(*id, &entry).await?;
            }
        }
        // As a reader would who missed them; what was written meanwhile is newer and stays.
        let writes = found.values().map(|order| current(order, true)).collect::<Vec<_>>();
        stores.cache.put(&writes).await?;
    }
    Ok(())
}
