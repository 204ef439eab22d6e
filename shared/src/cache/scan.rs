//! Going through all entries, on each server that holds some.

use super::{breaker::Call, client::Cache, entry, error::CacheError};
use crate::{
    domain::order::OrderKey,
    platform::redis::{Era, Redis},
};

/// Keys that Redis reads in one step of a scan, which bounds how long it is busy.
const SCAN_STEP: usize = 1000;

/// A scan over all entries. An entry that exists throughout the scan is found at least once.
pub struct CacheScan {
    cache: Cache,
    /// The servers that have not been scanned to the end.
    primaries: Vec<Redis>,
    /// Where the scan of the last of them continues.
    cursor: u64,
}

impl Cache {
    /// Starts a scan.
    pub async fn start_scan(&self) -> Result<CacheScan, CacheError> {
        let primaries = self.call(Call::Read, self.redis().each_primary()).await?;
        let primaries = primaries.into_iter().map(|(primary, _)| primary).collect();
        Ok(CacheScan { cache: self.clone(), primaries, cursor: 0 })
    }

    /// Removes every entry that exists throughout the scan, and the marks of readers that are about to fill one. Returns the
    /// number of keys removed.
    pub async fn purge(&self) -> Result<usize, CacheError> {
        let mut scan = self.start_scan().await?;
        let mut removed = 0;
        while let Some(keys) = scan.next_keys().await? {
            removed += self.call(Call::Write, self.redis().unlink(&keys)).await?;
        }
        Ok(removed)
    }
}

impl CacheScan {
    /// The orders that one step has found, perhaps none; `None` at the end.
    pub async fn next_orders(&mut self) -> Result<Option<Vec<OrderKey>>, CacheError> {
        let keys = self.next_keys().await?;
        Ok(keys.map(|keys| keys.iter().filter_map(|key| entry::parse_key(key)).collect()))
    }

    async fn next_keys(&mut self) -> Result<Option<Vec<String>>, CacheError> {
        let Some(primary) = self.primaries.last() else { return Ok(None) };
        let cursor = self.cursor;
        let scan = |era: Option<&Era>| {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(entry::key_pattern(era)).arg("COUNT").arg(SCAN_STEP);
            command
        };
        let (next, keys) = self.cache.call(Call::Read, primary.run_command_in_era(scan)).await?;
        self.cursor = next;
        if next == 0 {
            self.primaries.pop();
        }
        Ok(Some(keys))
    }
}
