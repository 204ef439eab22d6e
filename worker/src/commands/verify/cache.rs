//! Compares the cache with the orders.

use std::collections::HashMap;

use anyhow::Context as _;
use indicatif::ProgressBar;
use shared::{
    cache::{CacheEntry, Lookup},
    domain::order::{Order, OrderKey},
};

use super::{
    difference::{CacheFault, Difference},
    digest::Digest,
    findings::{Findings, Stores},
};
use crate::{commands::connect::acquire_connection, store::orders};

/// Entries of a batch.
const BATCH: usize = 500;

/// Compares every entry, but for those of tenants that are being removed. An order without an entry is no difference: the next reader fills it in.
pub(super) async fn compare_cache(
    stores: &Stores,
    only: Option<&[OrderKey]>,
    findings: &mut Findings,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let mut digest = Digest::default();
    if let Some(only) = only {
        compare_entries(stores, only, findings, &mut digest).await?;
    } else {
        // A scan can return an entry twice. Each order that was seen costs sixteen bytes.
        let mut seen = std::collections::HashSet::new();
        let mut scan = stores.cache.start_scan().await.context("cannot scan the cache")?;
        while let Some(mut orders) = scan.next_orders().await.context("cannot scan the cache")? {
            orders.retain(|order| !findings.removing.contains(&order.tenant) && seen.insert(*order));
            compare_entries(stores, &orders, findings, &mut digest).await?;
            progress.inc(orders.len() as u64);
        }
    }
    findings.digests.push(("cache", digest));
    Ok(())
}

async fn compare_entries(
    stores: &Stores,
    keys: &[OrderKey],
    findings: &mut Findings,
    digest: &mut Digest,
) -> anyhow::Result<()> {
    let mut connection = acquire_connection(&stores.db).await?;
    for keys in keys.chunks(BATCH) {
        let entries = stores.cache.entries(keys).await.context("cannot read the cache")?;
        let found = orders::load_orders(&mut connection, keys).await?;
        let found: HashMap<OrderKey, Order> = found.into_iter().map(|order| (order.key(), order)).collect();
        for (key, entry) in keys.iter().zip(entries) {
            let Some(entry) = entry else { continue };
            let raw = entry.as_bytes();
            digest.add(&[&key.tenant.get().to_be_bytes(), &key.id.get().to_be_bytes(), raw]);
            if let Some(fault) = find_fault(&entry, found.get(key)) {
                findings.differences.push(Difference::Cache { order: *key, fault });
            }
        }
    }
    connection.release();
    Ok(())
}

/// What is wrong with an entry, compared with the order, if it exists.
pub(super) fn find_fault(entry: &CacheEntry, order: Option<&Order>) -> Option<CacheFault> {
    match (entry.lookup(), order) {
        (None, _) => Some(CacheFault::Unreadable),
        // An incomplete entry is never read.
        (Some(Lookup::Miss), _) | (Some(Lookup::Deleted { .. }), None) => None,
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
