//! `worker verify`: compares orders, log, history and cache, and repairs what it can.
//! The statement that compares the tables is in `crate::store::comparison`.

mod cache;
mod difference;
mod digest;
mod findings;
mod records;
mod repair;

use std::{
    collections::{BTreeSet, HashSet},
    process::ExitCode,
    time::Duration,
};

use shared::{
    cache::CacheError,
    domain::{order::OrderKey, tenant::TenantId},
};

pub(super) use self::findings::Stores;
use self::{difference::Difference, findings::Findings};
use super::{
    connect::acquire_connection,
    screen::{format_count, print_line, spinner},
};
use crate::{cli::Verify, config::WorkerConfig, errors::chain, store::removal::list_removals};

/// How long a difference must last to count: an event that is on its way arrives within seconds.
const SETTLE: Duration = Duration::from_secs(5);

/// What this command cannot compare.
const NOT_COMPARED: &str = "not compared: what handlers other than history and cache did with the events \
                            (`worker replay --handler NAME` gives a handler its events again)";

/// Prints digests and every difference, repairs with `--repair` what can be repaired, and fails if differences remain.
pub(super) async fn verify_stores(
    stores: &Stores,
    config: &WorkerConfig,
    how: &Verify,
) -> anyhow::Result<ExitCode> {
    let mut found = compare_stores(stores, None).await?;
    print_line(&format!("{:<25} {:>12}  digest", "", "entries"))?;
    for (name, digest) in &found.digests {
        print_line(&format!("{name:<25} {:>12}  {digest}", digest.count()))?;
    }
    if !found.differences.is_empty() {
        found = keep_lasting(stores, found).await?;
    }
    for difference in &found.differences {
        print_line(&format!("difference: {difference}"))?;
    }
    if how.repair && !found.differences.is_empty() {
        let before = found.differences.len();
        repair::repair_differences(stores, config, &found.differences).await?;
        found = keep_lasting(stores, found).await?;
        for difference in &found.differences {
            print_line(&format!("remains: {difference}"))?;
        }
        print_line(&format!(
            "mended {} of {}",
            before - found.differences.len(),
            format_count(before, "difference")
        ))?;
    }
    print_line(NOT_COMPARED)?;
    for tenant in &found.removing {
        print_line(&format!("not compared: tenant {tenant}, because it is being removed"))?;
    }
    if let Some(error) = &found.cache_error {
        print_line(&format!(
            "not compared: the cache, because Redis cannot be read: {}",
            chain(error.as_ref())
        ))?;
    }
    let count = found.differences.len();
    print_line(&if count == 0 { "no difference".to_owned() } else { format_count(count, "difference") })?;
    Ok(if count == 0 && found.cache_error.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What to look at once more.
struct Only {
    /// Orders in log, history and tables.
    orders: Vec<i64>,
    /// Orders in the cache.
    cached: Vec<OrderKey>,
}

/// Compares everything of all tenants, or only this.
async fn compare_stores(stores: &Stores, only: Option<&Only>) -> anyhow::Result<Findings> {
    let progress = spinner("comparing");
    let mut findings = Findings { removing: load_removing(stores).await?, ..Findings::default() };
    records::compare_records(&stores.db, only.map(|only| &*only.orders), &mut findings, &progress).await?;
    // Without Redis, the findings of the database still count.
    if let Err(error) =
        cache::compare_cache(stores, only.map(|only| &*only.cached), &mut findings, &progress).await
    {
        if error.downcast_ref::<CacheError>().is_some() {
            findings.cache_error = Some(error);
        } else {
            return Err(error);
        }
    }
    progress.finish_and_clear();
    // Report the differences of an order together.
    findings.differences.sort_by_key(Difference::order);
    Ok(findings)
}

async fn load_removing(stores: &Stores) -> anyhow::Result<BTreeSet<TenantId>> {
    let mut connection = acquire_connection(&stores.db).await?;
    let removing = list_removals(&mut connection, Duration::ZERO).await?;
    connection.release();
    Ok(removing.into_iter().collect())
}

/// Keeps the differences that are still the same 5 s later.
async fn keep_lasting(stores: &Stores, mut found: Findings) -> anyhow::Result<Findings> {
    tokio::time::sleep(SETTLE).await;
    let mut only = Only { orders: Vec::new(), cached: Vec::new() };
    for difference in &found.differences {
        match difference {
            Difference::Cache { order, .. } => only.cached.push(*order),
            other => only.orders.push(other.order()),
        }
    }
    only.orders.sort_unstable();
    only.orders.dedup();
    let again = compare_stores(stores, Some(&only)).await?;
    let now: HashSet<Difference> = again.differences.into_iter().collect();
    let cache_is_known = again.cache_error.is_none();
    found.differences.retain(|difference| {
        now.contains(difference) || !cache_is_known && matches!(difference, Difference::Cache { .. })
    });
    found.cache_error = found.cache_error.or(again.cache_error);
    found.removing.extend(again.removing);
    Ok(found)
}
