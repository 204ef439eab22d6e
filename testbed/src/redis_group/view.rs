//! What the servers of a group say of each other.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use redis::FromRedisValue;

use super::RedisGroup;
use crate::private::PrivateRedis;

/// The name under which the sentinels know the master.
pub(super) const SENTINEL_SERVICE: &str = "orders";
/// Between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// A server that has not answered by then is frozen or gone, or on a very busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

impl RedisGroup {
    /// What keeps the group from failing over, as an error.
    pub(super) async fn check_ready(&self) -> anyhow::Result<()> {
        if self.sentinels.is_empty() { self.check_cluster().await } else { self.check_sentinels().await }
    }

    async fn check_sentinels(&self) -> anyhow::Result<()> {
        let master = self.find_master_of("").await?;
        for sentinel in &self.sentinels {
            try_ask::<String>(sentinel, &["SENTINEL", "CKQUORUM", SENTINEL_SERVICE]).await?;
            let seen: Vec<String> = try_ask(sentinel, &["SENTINEL", "MASTER", SENTINEL_SERVICE]).await?;
            for (name, expected) in [("flags", "master"), ("num-slaves", "2"), ("num-other-sentinels", "2")] {
                let value = seen.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
                ensure!(value == Some(expected), "a sentinel sees {name} {value:?}, not {expected}");
            }
        }
        for node in &self.nodes {
            let expected = if node.url() == master.url() { "role:master" } else { "master_link_status:up" };
            ensure!(replication(node).await?.contains(expected), "{} does not say {expected}", node.url());
        }
        Ok(())
    }

    async fn check_cluster(&self) -> anyhow::Result<()> {
        let mut views = Vec::new();
        for node in &self.nodes {
            let info: String = try_ask(node, &["CLUSTER", "INFO"]).await?;
            let is_whole = info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384");
            ensure!(is_whole, "{} sees no whole cluster", node.url());
            let replication = replication(node).await?;
            let is_master = replication.contains("role:master") && replication.contains("connected_slaves:1");
            ensure!(is_master || replication.contains("master_link_status:up"), "{} is alone", node.url());
            let view: String = try_ask(node, &["CLUSTER", "NODES"]).await?;
            ensure!(view.lines().count() == self.nodes.len(), "{} does not know all nodes", node.url());
            ensure!(!view.contains("fail"), "{} sees a failure", node.url());
            views.push(owners(&view));
        }
        ensure!(views.windows(2).all(|pair| pair[0] == pair[1]), "the nodes do not agree on the owners");
        Ok(())
    }

    /// The node that most sentinels name, or most nodes as the owner of this key's slot, if it says so itself.
    pub(super) async fn find_master_of(&self, key: &str) -> anyhow::Result<&PrivateRedis> {
        let is_cluster = self.sentinels.is_empty();
        let voters = if is_cluster { &self.nodes } else { &self.sentinels };
        let mut named = Vec::new();
        for voter in voters {
            let port = if is_cluster { owner_of(voter, key).await } else { master_of_sentinel(voter).await };
            named.extend(port.ok().flatten());
        }
        let count = |port: &str| named.iter().filter(|other| *other == port).count();
        let port = named.iter().find(|port| count(port) > voters.len() / 2);
        let port = port.with_context(|| format!("no majority for a master: {named:?}"))?;
        let node = self.nodes.iter().find(|node| host_and_port(node).1 == port);
        let node = node.with_context(|| format!("the master is none of ours: {port}"))?;
        let is_master = replication(node).await?.contains("role:master");
        ensure!(is_master, "{} does not know yet that it is the master", node.url());
        Ok(node)
    }
}

/// The port of the master that a sentinel names.
async fn master_of_sentinel(sentinel: &PrivateRedis) -> anyhow::Result<Option<String>> {
    let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_SERVICE];
    let address: Option<(String, String)> = try_ask(sentinel, &command).await?;
    Ok(address.map(|(_, port)| port))
}

/// The port of the node that another one names as the owner of this key's slot.
async fn owner_of(node: &PrivateRedis, key: &str) -> anyhow::Result<Option<String>> {
    let slot: u16 = try_ask(node, &["CLUSTER", "KEYSLOT", key]).await?;
    let owners = owners(&try_ask::<String>(node, &["CLUSTER", "NODES"]).await?);
    let holds = |range: &String| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    };
    let address = owners.into_iter().find(|(_, slots)| slots.iter().any(holds)).map(|(address, _)| address);
    Ok(address.and_then(|address| Some(address.rsplit_once(':')?.1.to_owned())))
}

/// The host and port of each owner of slots that `CLUSTER NODES` lists.
pub(super) fn owner_addresses(view: &str) -> Vec<String> {
    owners(view).into_iter().map(|(address, _)| address).collect()
}

/// Each owner of slots by its address, with the ranges, as `CLUSTER NODES` lists them, in an order that all nodes share.
fn owners(view: &str) -> Vec<(String, Vec<String>)> {
    let owner = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let address = columns.get(1)?.split('@').next()?;
        let slots: Vec<String> = columns.get(8..)?.iter().map(|range| (*range).to_owned()).collect();
        let is_owner = columns[2].contains("master") && !slots.is_empty();
        is_owner.then(|| (address.to_owned(), slots))
    };
    let mut owners: Vec<_> = view.lines().filter_map(owner).collect();
    owners.sort();
    owners
}

async fn replication(node: &PrivateRedis) -> anyhow::Result<String> {
    try_ask(node, &["INFO", "REPLICATION"]).await
}

/// How many bytes of its stream each replica of a master has confirmed.
pub(super) async fn received_by_replicas(master: &PrivateRedis) -> anyhow::Result<Vec<u64>> {
    // `slave0:ip=127.0.0.1,port=6380,state=online,offset=123,lag=0`
    let replication = replication(master).await?;
    let replicas = replication.lines().filter(|line| line.starts_with("slave") && line.contains("state="));
    let offset = |line: &str| {
        let offset = line.split(',').find_map(|field| field.strip_prefix("offset="));
        offset.and_then(|offset| offset.parse().ok()).with_context(|| format!("no offset in {line}"))
    };
    replicas.map(offset).collect()
}

pub(super) fn host_and_port(server: &PrivateRedis) -> (&str, &str) {
    let address = server.url().strip_prefix("redis://").and_then(|rest| rest.strip_suffix("/0"));
    address.and_then(|address| address.split_once(':')).expect("the address of a Redis server of our own")
}

/// The answer to one command, on a connection of its own; an error if it does not come soon.
pub(super) async fn try_ask<T: FromRedisValue>(server: &PrivateRedis, command: &[&str]) -> anyhow::Result<T> {
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, ask(server, command)).await;
    answered.unwrap_or_else(|_| bail!("{}: no answer to {command:?}", server.url()))
}

/// [`try_ask`] that waits, for commands that can be given only once.
pub(super) async fn ask<T: FromRedisValue>(server: &PrivateRedis, command: &[&str]) -> anyhow::Result<T> {
    let asked = async {
        let mut connection = crate::connect_redis(server.url()).await?;
        anyhow::Ok(redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await?)
    };
    asked.await.with_context(|| format!("{}: {command:?}", server.url()))
}
