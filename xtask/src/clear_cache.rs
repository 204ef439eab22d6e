//! `cargo xtask clear-cache`.

use std::process::ExitCode;

use crate::settings;
use crate::status::print_status;

/// The keys of cached orders. Sessions, rate limits and the event stream live beside them and stay.
const CACHED_ORDERS: &str = "cache:*order:*";
const PAGE: usize = 1000;

pub(crate) async fn clear_cache() -> anyhow::Result<ExitCode> {
    let removed = remove_cached_orders(&settings::running_system("REDIS_URL")?).await?;
    print_status(format!("{removed} cached orders forgotten."));
    Ok(ExitCode::SUCCESS)
}

/// Removes every cached order, a page at a time, so that Redis goes on serving meanwhile.
pub(crate) async fn remove_cached_orders(url: &str) -> anyhow::Result<u64> {
    let mut removed = 0;
    for mut redis in testbed::connect_redis_masters(url).await? {
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(CACHED_ORDERS)
                .arg("COUNT")
                .arg(PAGE)
                .query_async(&mut redis)
                .await?;
            if !keys.is_empty() {
                // Each by itself, because the keys of one command must share a slot in a cluster.
                let mut unlink = redis::pipe();
                for key in keys {
                    unlink.unlink(key);
                }
                removed += unlink.query_async::<Vec<u64>>(&mut redis).await?.iter().sum::<u64>();
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(removed)
}
