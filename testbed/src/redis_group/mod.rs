//! Several Redis servers that replace each other: a master with two replicas that three sentinels watch, or a cluster of
//! three masters with a replica each. How they are started stands in `start.rs`, what they say of each other in `view.rs`.

mod masters;
mod start;
mod view;

use anyhow::Context;

use crate::native::Storage;
use crate::private::PrivateRedis;
use crate::{eventually, eventually_within};

pub use masters::connect_redis_masters;
pub use start::{redis_cluster, redis_sentinel};

/// Whether every server is up may take a minute to see on a slow and busy machine.
const READY_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(1);

/// Redis servers that replace each other within seconds. They are killed with this value.
#[derive(Debug)]
pub struct RedisGroup {
    url: String,
    nodes: Vec<PrivateRedis>,
    sentinels: Vec<PrivateRedis>,
}

/// Starts a master with two replicas, watched by three sentinels.
///
/// # Panics
///
/// If they are not ready within a minute.
pub async fn private_redis_sentinel() -> RedisGroup {
    let group = redis_sentinel(&Storage::Throwaway).await;
    group.unwrap_or_else(|error| panic!("no Redis with sentinels for this test: {error:#}"))
}

/// Starts a cluster of three masters with a replica each.
///
/// # Panics
///
/// If it is not ready within a minute.
pub async fn private_redis_cluster() -> RedisGroup {
    let group = redis_cluster(&Storage::Throwaway).await;
    group.unwrap_or_else(|error| panic!("no Redis Cluster for this test: {error:#}"))
}

impl RedisGroup {
    /// What a program under test connects to: `redis+sentinel://…/orders` with every sentinel, or `redis+cluster://…` with
    /// every node.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The servers that hold data: to kill, freeze, start again and ask each by itself.
    pub fn nodes(&self) -> &[PrivateRedis] {
        &self.nodes
    }

    /// The servers that watch them; a cluster has none.
    pub fn sentinels(&self) -> &[PrivateRedis] {
        &self.sentinels
    }

    /// Waits until every server runs, every replica follows its master, and all agree on who is who.
    ///
    /// # Panics
    ///
    /// If that takes over a minute.
    pub async fn wait_ready(&self) {
        eventually_within(READY_TIMEOUT, "the Redis servers are ready", async || self.check_ready().await)
            .await;
    }

    /// The node that takes writes of this key now: the one that most of the others name, once it says so itself.
    ///
    /// # Panics
    ///
    /// If there is none within half a minute.
    pub async fn master_of(&self, key: &str) -> &PrivateRedis {
        eventually("a Redis server is the master", async || self.find_master_of(key).await).await
    }

    /// Waits until another node takes writes of this key, and returns it.
    ///
    /// # Panics
    ///
    /// If there is none within half a minute.
    pub async fn successor_of(&self, former: &PrivateRedis, key: &str) -> &PrivateRedis {
        let another = async || {
            let master = self.find_master_of(key).await?;
            anyhow::ensure!(master.url() != former.url(), "{} is still the master", former.url());
            Ok(master)
        };
        eventually("another Redis server is promoted", another).await
    }

    /// Waits until every replica of this master that it knows, and one at least, has what it has been given so far.
    /// `WAIT` does not show that: it counts what its own connection has written.
    ///
    /// # Panics
    ///
    /// If that takes over half a minute.
    pub async fn wait_replicated(&self, master: &PrivateRedis) {
        let given = master.info("master_repl_offset").await;
        let given: u64 = given.parse().expect("a number of bytes");
        eventually("the replicas have what their master has", async || {
            let received = view::received_by_replicas(master).await?;
            let have_it = !received.is_empty() && received.iter().all(|bytes| *bytes >= given);
            anyhow::ensure!(have_it, "{received:?} of {given} bytes");
            anyhow::Ok(())
        })
        .await;
    }

    /// Has every node know one more user, who may do everything.
    ///
    /// # Panics
    ///
    /// If one of them does not answer.
    pub async fn add_user(&self, name: &str, password: &str) {
        for node in &self.nodes {
            let password = format!(">{password}");
            node.ask::<()>(&["ACL", "SETUSER", name, "on", &password, "~*", "&*", "+@all"]).await;
        }
    }

    /// Has a master send its replicas nothing more: what it is given from here on is lost when one of them is promoted.
    /// [`Self::resume_replication`] ends it, and so does a new start.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub async fn stop_replication(&self, master: &PrivateRedis) {
        master.ask::<()>(&["ACL", "SETUSER", "default", "-psync", "-sync"]).await;
        master.ask::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    }

    /// Ends [`Self::stop_replication`].
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub async fn resume_replication(&self, master: &PrivateRedis) {
        master.ask::<()>(&["ACL", "SETUSER", "default", "+psync", "+sync"]).await;
    }

    /// Has a node refuse everybody but this user, as if a network had been cut between the two of them and all others, who
    /// then replace it. It remains a master.
    ///
    /// # Panics
    ///
    /// If the node does not answer.
    pub async fn cut_off(&self, node: &PrivateRedis, user: &str, password: &str) {
        set_default_user(node, user, password, "off").await;
    }

    /// Ends [`Self::cut_off`].
    ///
    /// # Panics
    ///
    /// If the node does not answer.
    pub async fn let_back(&self, node: &PrivateRedis, user: &str, password: &str) {
        set_default_user(node, user, password, "on").await;
    }

    /// Whether no server that holds data runs any more.
    pub fn has_failed(&self) -> bool {
        self.nodes.iter().all(|node| node.server().ended().unwrap_or(true))
    }

    /// Stops all in good order: the sentinels first, so that they promote nobody meanwhile.
    ///
    /// # Errors
    ///
    /// If one of them does not stop.
    pub async fn stop(&self) -> anyhow::Result<()> {
        for server in self.sentinels.iter().chain(self.nodes.iter().rev()) {
            server.server().stop().await.with_context(|| format!("{} does not stop", server.url()))?;
        }
        Ok(())
    }
}

/// Switches the user that everybody is who names none, and ends all of its connections: those of clients, replicas and
/// sentinels.
async fn set_default_user(node: &PrivateRedis, user: &str, password: &str, state: &str) {
    let url = format!("redis://{user}:{password}@{}/0", node.address());
    let switched = async {
        let mut connection = crate::connect_redis(&url).await?;
        redis::cmd("ACL").arg(&["SETUSER", "default", state]).exec_async(&mut connection).await?;
        redis::cmd("CLIENT").arg(&["KILL", "USER", "default"]).exec_async(&mut connection).await?;
        anyhow::Ok(())
    };
    switched.await.unwrap_or_else(|error| panic!("{url}: {error:#}"));
}
