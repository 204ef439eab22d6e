//! `cargo xtask clear-cache`.

use std::process::ExitCode;

use anyhow::{Context, bail};

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
    for primary in primary_urls(url).await? {
        removed += remove_from(&primary).await?;
    }
    Ok(removed)
}

async fn remove_from(primary: &str) -> anyhow::Result<u64> {
    let mut redis = testbed::connect_redis(primary).await?;
    let (mut cursor, mut removed) = (0_u64, 0_u64);
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(CACHED_ORDERS)
            .arg("COUNT")
            .arg(PAGE)
            .query_async(&mut redis)
            .await?;
        // One by one: in a cluster, a command must not name keys of two slots.
        let mut unlink = redis::pipe();
        for key in keys {
            unlink.cmd("UNLINK").arg(key);
        }
        if !unlink.is_empty() {
            removed += unlink.query_async::<Vec<u64>>(&mut redis).await?.iter().sum::<u64>();
        }
        if next == 0 {
            return Ok(removed);
        }
        cursor = next;
    }
}

/// A URL of each server that holds cached orders: the primary that sentinels name, or each primary of a cluster.
async fn primary_urls(url: &str) -> anyhow::Result<Vec<String>> {
    let (scheme, rest) = url.split_once("://").context("REDIS_URL is not a Redis address")?;
    let Some((scheme, kind)) = scheme.split_once('+') else { return Ok(vec![url.to_owned()]) };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let (name, database) = path.split_once('/').unwrap_or((path, "0"));
    for host in hosts.split(',') {
        let found = match kind {
            "sentinel" => named_by_sentinel(&format!("{scheme}://{host}"), name).await,
            _ => primaries_of_cluster(&format!("{scheme}://{user}{host}")).await,
        };
        if let Ok(addresses) = found {
            let url = |address| format!("{scheme}://{user}{address}/{database}");
            return Ok(addresses.into_iter().map(url).collect());
        }
    }
    bail!("no server in REDIS_URL says where the primary is")
}

async fn named_by_sentinel(url: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let mut sentinel = testbed::connect_redis(url).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let (host, port): (String, u16) = question.query_async(&mut sentinel).await?;
    Ok(vec![format!("{host}:{port}")])
}

async fn primaries_of_cluster(url: &str) -> anyhow::Result<Vec<String>> {
    let mut node = testbed::connect_redis(url).await?;
    let nodes: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut node).await?;
    // ID ADDRESS@BUS FLAGS …
    let address = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (address, flags) = (fields.next()?, fields.next()?);
        let is_primary = flags.contains("master") && !flags.contains("fail");
        Some(address.split('@').next()?.to_owned()).filter(|_| is_primary)
    };
    Ok(nodes.lines().filter_map(address).collect())
}
