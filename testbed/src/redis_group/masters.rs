//! The servers behind a URL of sentinels or of a cluster, for tools that go through all keys.

use anyhow::{Context, bail};
use redis::aio::MultiplexedConnection;

use super::view::owner_addresses;
use crate::connect_redis;

/// A connection to each server that takes writes of clients of this `REDIS_URL`: to one, or to each master of a cluster.
///
/// # Errors
///
/// If none of the hosts answers, or a master does not.
pub async fn connect_redis_masters(url: &str) -> anyhow::Result<Vec<MultiplexedConnection>> {
    let mut connections = Vec::new();
    for master in find_masters(url).await? {
        connections.push(connect_redis(&master).await?);
    }
    Ok(connections)
}

async fn find_masters(url: &str) -> anyhow::Result<Vec<String>> {
    let (scheme, rest) = url.split_once("://").context("REDIS_URL is no URL")?;
    let Some((scheme, kind)) = scheme.split_once('+') else { return Ok(vec![url.to_owned()]) };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let (name, database) = path.split_once('/').unwrap_or((path, "0"));
    let mut last_error = None;
    for host in hosts.split(',') {
        let found = match kind {
            "sentinel" => ask_sentinel(&format!("{scheme}://{host}"), name).await,
            _ => ask_node(&format!("{scheme}://{user}{host}")).await,
        };
        match found {
            Ok(addresses) => {
                let url = |address| format!("{scheme}://{user}{address}/{database}");
                return Ok(addresses.into_iter().map(url).collect());
            }
            Err(error) => last_error = Some(error),
        }
    }
    bail!("no master is known at REDIS_URL: {:#}", last_error.context("it names no host")?)
}

async fn ask_sentinel(url: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let mut sentinel = connect_redis(url).await?;
    let question = ["GET-MASTER-ADDR-BY-NAME", name];
    let answer: Option<(String, u16)> =
        redis::cmd("SENTINEL").arg(&question).query_async(&mut sentinel).await?;
    let (host, port) = answer.with_context(|| format!("the sentinel knows no master named {name:?}"))?;
    Ok(vec![format!("{host}:{port}")])
}

async fn ask_node(url: &str) -> anyhow::Result<Vec<String>> {
    let mut node = connect_redis(url).await?;
    let view: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut node).await?;
    Ok(owner_addresses(&view))
}
