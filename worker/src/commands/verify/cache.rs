//! The cache against the orders.

use std::collections::HashMap;

use anyhow::Context as _;
use indicatif::ProgressBar;
use shared::{
    cache::{CacheEntry, Lookup},
    domain::order::{Order, OrderId},
};

use super::{Difference, Digest, Findings, Stores, difference::CacheFault};
use crate::{commands::connection, store::orders};

/// Entries in one go.
const BATCH: usize = 500;

/// Looks at every entry. An order without an entry is no difference: it is read when it is asked for.
pub(super) async fn compare(
    stores: &Stores,
    only: Option<&[i64]>,
    findings: &mut Findings,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let mut digest = Digest::default();
    if let Some(only) = only {
        let ids: Vec<OrderId> = only.iter().filter_map(|id| OrderId::try_from(*id).ok()).collect();
        compare_these(stores, &ids, findings, &mut digest).await?;
    } else {
        // A walk may name an entry twice; seen ones cost eight bytes each.
        let mut seen = std::collections::HashSet::new();
        let mut cursor = 0;
        loop {
            let (next, mut ids) = stores.cache.scan(cursor).await.context("cannot walk over the cache")?;
            ids.retain(|id| seen.insert(*id));
            compare_these(stores, &ids, findings, &mut digest).await?;
            progress.inc(ids.len() as u64);
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    findings.digests.push(("cache", digest));
    Ok(())
}

async fn compare_these(
    stores: &Stores,
    ids: &[OrderId],
    findings: &mut Findings,
    digest: &mut Digest,
) -> anyhow::Result<()> {
    let mut connection = connection(&stores.db).await?;
    for ids in ids.chunks(BATCH) {
        let entries = stores.cache.entries(ids).await.context("cannot read the cache")?;
        let found = orders::by_ids(&mut connection, ids).await?;
        let found: HashMap<OrderId, Order> = found.into_iter().map(|order| (order.id, order)).collect();
        for (id, entry) in ids.iter().zip(entries) {
            let Some(entry) = entry else { continue };
            let raw = entry.as_bytes();
            digest.add(&[&id.get().to_be_bytes(), raw]);
            if let Some(fault) = fault(&entry, found.get(id)) {
                findings.differences.push(Difference::Cache { order: *id, fault });
            }
        }
    }
    connection.release();
    Ok(())
}

/// What is wrong with an entry, given the order where it exists.
pub(super) fn fault(entry: &CacheEntry, order: Option<&Order>) -> Option<CacheFault> {
    match (entry.lookup(), order) {
        (None | Some(Lookup::Miss), _) => Some(CacheFault::Unreadable),
        (Some(Lookup::Deleted { .. }), None) => None,
        (Some(Lookup::Deleted { version }), Some(_)) => Some(CacheFault::Tombstone { cached: version }),
        (Some(Lookup::Found(found)), None) => Some(CacheFault::Orphan { cached: found.version }),
        (Some(Lookup::Found(found)), Some(order)) => {
            let cached = found.version;
            if cached < order.version {
                Some(CacheFault::Behind { cached })
            } else if cached > order.version {
                Some(CacheFault::Ahead { cached })
            } else if found.owner != order.customer_id || found.body != order.to_json() {
                Some(CacheFault::Differs { cached })
            } else {
                None
            }
        }
    }
}
