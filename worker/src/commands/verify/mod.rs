//! `worker verify`: do orders, log, history and cache agree?

mod cache;
mod difference;
mod digest;
mod records;
mod repair;

use std::{collections::HashSet, process::ExitCode, time::Duration};

use shared::cache::Cache;
use shared::db::DbPool;

pub(super) use self::difference::Difference;
use self::digest::Digest;
use super::screen::{counted, say, spinner};
use crate::{cli::Verify, config::WorkerConfig};

/// How long a difference must last to count: what is merely on its way arrives within seconds.
const SETTLE: Duration = Duration::from_secs(5);

/// What is compared.
pub(super) struct Stores {
    /// Orders, log and history.
    pub(super) db: DbPool,
    /// The cache.
    pub(super) cache: Cache,
}

/// What one look found.
struct Findings {
    digests: Vec<(&'static str, Digest)>,
    differences: Vec<Difference>,
}

/// Prints digests and every difference, mends what shall and can be, and fails where differences remain.
pub(super) async fn verify(stores: &Stores, config: &WorkerConfig, how: &Verify) -> anyhow::Result<ExitCode> {
    let mut found = stores.look(None).await?;
    say(&format!("{:<24} {:>12}  digest", "", "entries"))?;
    for (name, digest) in &found.digests {
        say(&format!("{name:<24} {:>12}  {digest}", digest.count()))?;
    }
    if !found.differences.is_empty() {
        found.differences = stores.lasting(found.differences).await?;
    }
    for difference in &found.differences {
        say(&format!("difference: {difference}"))?;
    }
    if how.repair && !found.differences.is_empty() {
        let before = found.differences.len();
        repair::repair(stores, config, &found.differences).await?;
        found.differences = stores.lasting(found.differences).await?;
        for difference in &found.differences {
            say(&format!("remains: {difference}"))?;
        }
        say(&format!("mended {} of {}", before - found.differences.len(), counted(before, "difference")))?;
    }
    if found.differences.is_empty() {
        say("no difference")?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&counted(found.differences.len(), "difference"))?;
    Ok(ExitCode::FAILURE)
}

impl Stores {
    /// Compares everything, or only these orders.
    async fn look(&self, only: Option<&[i64]>) -> anyhow::Result<Findings> {
        let progress = spinner("comparing");
        let mut findings = Findings { digests: Vec::new(), differences: Vec::new() };
        records::compare(&self.db, only, &mut findings, &progress).await?;
        cache::compare(self, only, &mut findings, &progress).await?;
        progress.finish_and_clear();
        // All that is wrong with an order together.
        findings.differences.sort_by_key(Difference::order);
        Ok(findings)
    }

    /// Those of the differences that are still the same after a while.
    async fn lasting(&self, differences: Vec<Difference>) -> anyhow::Result<Vec<Difference>> {
        tokio::time::sleep(SETTLE).await;
        let mut orders: Vec<i64> = differences.iter().map(Difference::order).collect();
        orders.sort_unstable();
        orders.dedup();
        let now: HashSet<Difference> = self.look(Some(&orders)).await?.differences.into_iter().collect();
        Ok(differences.into_iter().filter(|difference| now.contains(difference)).collect())
    }
}
