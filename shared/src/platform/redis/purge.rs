//! Removing keys by a pattern.

use futures_util::future::try_join_all;

use super::{Redis, RedisFailure};

/// Keys that Redis reads in one step of a scan, which bounds how long it is busy.
const SCAN_STEP: usize = 1000;

impl Redis {
    /// Removes every key that fits a pattern of `SCAN` and exists from the beginning to the end, on each server. Returns how many
    /// these were.
    pub async fn remove_matching(&self, pattern: &str) -> Result<usize, RedisFailure> {
        let mut removed = 0;
        for (primary, _) in self.each_primary().await? {
            let mut cursor = 0_u64;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_STEP);
                let (next, keys): (u64, Vec<String>) = primary.run_command(&scan).await?;
                removed += self.unlink(&keys).await?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Removes keys, in whichever slots they are. Returns how many there were.
    pub(crate) async fn unlink(&self, keys: &[String]) -> Result<usize, RedisFailure> {
        let groups = self.group_by_slot(keys, String::clone);
        let unlinks = groups.iter().filter(|(_, places)| !places.is_empty()).map(async |(redis, places)| {
            let mut unlink = redis::cmd("UNLINK");
            for place in places {
                unlink.arg(&keys[*place]);
            }
            redis.run_command::<usize>(&unlink).await
        });
        Ok(try_join_all(unlinks).await?.into_iter().sum())
    }
}
