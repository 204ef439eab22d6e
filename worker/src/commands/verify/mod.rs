//! `worker verify`: do orders, log, history and cache agree?

mod cache;
mod difference;
mod digest;
mod records;
mod repair;

use std::{collections::HashSet, process::ExitCode, time::Duration};

use shared::{
    cache::{Cache, CacheError},
    platform::db::DbPool,
};

pub(super) use self::difference::Difference;
use self::digest::Digest;
use super::screen::{counted, say, spinner};
use crate::{cli::Verify, config::WorkerConfig, errors::chain};

/// How long a difference must last to count: what is merely on its way arrives within seconds.
const SETTLE: Duration = Duration::from_secs(5);

/// What nobody can compare here.
const NOT_COMPARED: &str = "not compared: what handlers other than history and cache did with the events \
                            (`worker replay --handler NAME` gives a handler its events again)";

/// What is compared.
pub(super) struct Stores {
    /// Orders, log and history.
    pub(super) db: DbPool,
    /// The cache.
    pub(super) cache: Cache,
}

/// What one look found.
#[derive(Default)]
struct Findings {
    digests: Vec<(&'static str, Digest)>,
    differences: Vec<Difference>,
    /// Why the cache was not compared, or not to its end.
    cache_error: Option<anyhow::Error>,
}

/// Prints digests and every difference, mends what shall and can be, and fails where differences remain.
pub(super) async fn verify(stores: &Stores, config: &WorkerConfig, how: &Verify) -> anyhow::Result<ExitCode> {
    let mut found = stores.look(None).await?;
    say(&format!("{:<24} {:>12}  digest", "", "entries"))?;
    for (name, digest) in &found.digests {
        say(&format!("{name:<24} {:>12}  {digest}", digest.count()))?;
    }
    if !found.differences.is_empty() {
        found = stores.lasting(found).await?;
    }
    for difference in &found.differences {
        say(&format!("difference: {difference}"))?;
    }
    if how.repair && !found.differences.is_empty() {
        let before = found.differences.len();
        repair::repair(stores, config, &found.differences).await?;
        found = stores.lasting(found).await?;
        for difference in &found.differences {
            say(&format!("remains: {difference}"))?;
        }
        say(&format!("mended {} of {}", before - found.differences.len(), counted(before, "difference")))?;
    }
    say(NOT_COMPARED)?;
    if let Some(error) = &found.cache_error {
        say(&format!("not compared: the cache, because Redis cannot be read: {}", chain(error.as_ref())))?;
    }
    let count = found.differences.len();
    say(&if count == 0 { "no difference".to_owned() } else { counted(count, "difference") })?;
    Ok(if count == 0 && found.cache_error.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Stores {
    /// Compares everything, or only these orders.
    async fn look(&self, only: Option<&[i64]>) -> anyhow::Result<Findings> {
        let progress = spinner("comparing");
        let mut findings = Findings::default();
        records::compare(&self.db, only, &mut findings, &progress).await?;
        // Without Redis there still is what the database says.
        if let Err(error) = cache::compare(self, only, &mut findings, &progress).await {
            if error.downcast_ref::<CacheError>().is_some() {
                findings.cache_error = Some(error);
            } else {
                return Err(error);
            }
        }
        progress.finish_and_clear();
        // All that is wrong with an order together.
        findings.differences.sort_by_key(Difference::order);
        Ok(findings)
    }

    /// Those of the differences that are still the same after a while.
    async fn lasting(&self, mut found: Findings) -> anyhow::Result<Findings> {
        tokio::time::sleep(SETTLE).await;
        let mut orders: Vec<i64> = found.differences.iter().map(Difference::order).collect();
        orders.sort_unstable();
        orders.dedup();
        let again = self.look(Some(&orders)).await?;
        let now: HashSet<Difference> = again.differences.into_iter().collect();
        let cache_is_known = again.cache_error.is_none();
        found.differences.retain(|difference| {
            now.contains(difference) || !cache_is_known && matches!(difference, Difference::Cache { .. })
        });
        found.cache_error = found.cache_error.or(again.cache_error);
        Ok(found)
    }
}
