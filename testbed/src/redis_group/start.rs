//! Starting a group of Redis servers, and making master, replicas or a cluster of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};

use super::view::{PAUSE, SENTINEL_SERVICE, ask, host_and_port};
use super::{READY_TIMEOUT, RedisGroup};
use crate::native::{self, Storage};
use crate::port;
use crate::private::PrivateRedis;

/// A master that has been silent for 1.5 s is replaced. After an election without a winner the next is held in six seconds,
/// twice the time-out.
const SENTINEL_CONFIG: &str = "\
sentinel down-after-milliseconds orders 1500
sentinel failover-timeout orders 3000
sentinel parallel-syncs orders 2
";
const SENTINELS: usize = 3;
const NODES_OF_SENTINEL: usize = 3;
const MASTERS_OF_CLUSTER: usize = 3;
const SLOTS: usize = 16_384;

/// Starts a master, two replicas and three sentinels, empty or with the data of their last start, and waits until they are
/// ready to fail over.
pub async fn redis_sentinel(storage: &Storage) -> anyhow::Result<RedisGroup> {
    let folder = storage.folder("redis-sentinel")?;
    let master = last_master(&folder);
    let mut nodes = Vec::new();
    for number in 0..NODES_OF_SENTINEL {
        nodes.push(start_node(&part(&folder, "node", number)?, storage, &[]).await?);
    }
    let (host, port) = host_and_port(&nodes[master]);
    for replica in nodes.iter().filter(|node| node.url() != nodes[master].url()) {
        ask::<()>(replica, &["REPLICAOF", host, port]).await?;
        // As the sentinels do, so that it comes back as the replica that it was.
        ask::<()>(replica, &["CONFIG", "REWRITE"]).await?;
    }
    let config = format!("sentinel monitor {SENTINEL_SERVICE} {host} {port} 2\n{SENTINEL_CONFIG}");
    let mut sentinels = Vec::new();
    for number in 0..SENTINELS {
        let folder = part(&folder, "sentinel", number)?;
        let sentinel = native::start_redis_in(&folder, "Redis Sentinel", &config, &["--sentinel"]).await?;
        sentinels.push(PrivateRedis(sentinel));
    }
    let url = format!("redis+sentinel://{}/{SENTINEL_SERVICE}", addresses(&sentinels));
    wait_ready(RedisGroup { url, nodes, sentinels }).await
}

/// Starts a cluster of three masters with a replica each, empty or with the data of its last start, and waits until it is
/// ready to fail over.
pub async fn redis_cluster(storage: &Storage) -> anyhow::Result<RedisGroup> {
    let folder = storage.folder("redis-cluster")?;
    let mut nodes = Vec::new();
    let mut buses = Vec::new();
    let mut is_new = false;
    for number in 0..2 * MASTERS_OF_CLUSTER {
        let folder = part(&folder, "node", number)?;
        is_new |= !folder.join("nodes.conf").is_file();
        let bus = bus_port(&folder)?;
        let arguments = [
            &["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"],
            &["--cluster-node-timeout", "2000", "--cluster-port", &bus][..],
        ]
        .concat();
        let node = start_node(&folder, storage, &arguments).await?;
        if is_new {
            ask::<()>(&node, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await?;
        }
        nodes.push(node);
        buses.push(bus);
    }
    let (host, port) = host_and_port(&nodes[0]);
    for node in &nodes[1..] {
        ask::<()>(node, &["CLUSTER", "MEET", host, port, &buses[0]]).await?;
    }
    if is_new {
        share_slots(&nodes).await?;
    }
    let url = format!("redis+cluster://{}", addresses(&nodes));
    wait_ready(RedisGroup { url, nodes, sentinels: Vec::new() }).await
}

async fn wait_ready(group: RedisGroup) -> anyhow::Result<RedisGroup> {
    let start = Instant::now();
    loop {
        match group.check_ready().await {
            Ok(()) => return Ok(group),
            Err(error) if start.elapsed() > READY_TIMEOUT => {
                return Err(error.context(format!("Redis is not ready within {READY_TIMEOUT:?}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Gives the first half of the nodes the slots, and each a replica of the other half.
async fn share_slots(nodes: &[PrivateRedis]) -> anyhow::Result<()> {
    let (masters, replicas) = nodes.split_at(MASTERS_OF_CLUSTER);
    for (number, (master, replica)) in masters.iter().zip(replicas).enumerate() {
        let first = (number * SLOTS / MASTERS_OF_CLUSTER).to_string();
        let last = ((number + 1) * SLOTS / MASTERS_OF_CLUSTER - 1).to_string();
        ask::<()>(master, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
        let id: String = ask(master, &["CLUSTER", "MYID"]).await?;
        let start = Instant::now();
        // It must have heard of the master.
        while let Err(error) = ask::<()>(replica, &["CLUSTER", "REPLICATE", &id]).await {
            ensure!(start.elapsed() < READY_TIMEOUT, "a node does not become a replica: {error:#}");
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn start_node(folder: &Path, storage: &Storage, arguments: &[&str]) -> anyhow::Result<PrivateRedis> {
    let append_only = if storage.is_kept() { "yes" } else { "no" };
    // A replica that was away is back at once, not after the five seconds in which others might join it.
    let common = ["--appendonly", append_only, "--repl-diskless-sync-delay", "0"];
    let arguments = [&common, &native::EVICTION[..], arguments].concat();
    Ok(PrivateRedis(native::start_redis_in(folder, "Redis", "", &arguments).await?))
}

/// The folder of one server, which exists then.
fn part(folder: &Path, kind: &str, number: usize) -> anyhow::Result<PathBuf> {
    let part = folder.join(format!("{kind}-{}", number + 1));
    fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    Ok(part)
}

/// The port for the talk between the nodes, the same as last time if it is free. The server's default, its port plus 10000,
/// can lie among those of outgoing connections.
fn bus_port(folder: &Path) -> anyhow::Result<String> {
    let remembered = folder.join("bus-port");
    let last = fs::read_to_string(&remembered).ok().and_then(|text| text.parse().ok());
    let port = port::prefer(last).to_string();
    fs::write(&remembered, &port)?;
    Ok(port)
}

/// Which node the sentinels, in their configuration files, last knew as the master; the first one if there are none.
fn last_master(folder: &Path) -> usize {
    let read = |kind: &str, number: usize, file: &str| {
        let path = folder.join(format!("{kind}-{}", number + 1)).join(file);
        fs::read_to_string(path).unwrap_or_default()
    };
    let known = (0..SENTINELS).filter_map(|number| {
        let config = read("sentinel", number, "redis.conf");
        let words = |name: &str| {
            let line = config.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        // `sentinel monitor NAME HOST PORT QUORUM`, and `sentinel config-epoch NAME EPOCH`, which grows with each promotion.
        let port = words("sentinel monitor")?.get(4)?.clone();
        Some((words("sentinel config-epoch")?.get(3)?.parse::<u64>().ok()?, port))
    });
    let Some((_, port)) = known.max() else { return 0 };
    (0..NODES_OF_SENTINEL).find(|number| read("node", *number, "port").trim() == port).unwrap_or(0)
}

fn addresses(servers: &[PrivateRedis]) -> String {
    servers.iter().map(PrivateRedis::address).collect::<Vec<_>>().join(",")
}
