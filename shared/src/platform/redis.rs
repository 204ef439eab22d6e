//! Redis: connections that are replaced when they break, shared by all clones of a handle. No commands of orders.
//!
//! The cache, sessions, limits, streams and commands all use [`Redis`]. Its URL leads to one server, to the primary that sentinels
//! name, or to a cluster; a handle has one connection, or one to each primary of the cluster.
//!
//! - Every call has a deadline, and so has connecting.
//! - After a call that times out, and every second, the server is asked whether it still answers and is still the
//!   primary. If it does not confirm that within a second, the connection is closed, and the next call opens a new one. So
//!   a peer that has silently disappeared, or a primary that has become a replica, is left within about two seconds.
//! - An I/O error and an answer such as `READONLY` close the connection at once. The command is then tried once more on
//!   a new connection, so that no request fails after a restart of an idle server.
//! - A late failure on an old connection never closes a newer one.
//! - With sentinels, each connect asks which server is the primary, and so does the handle twice a second, as long as it is open.
//!   The nodes of a cluster are asked as often who owns which slot. See [`Redis::guarded`].

mod address;
mod call;
mod cluster;
mod connector;
mod failure;
mod lease;
mod link;
mod observer;
mod purge;
mod request;
mod sentinel;
mod slots;
mod socket;
mod writable;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ScriptInvocation, Value};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout};

pub(crate) use self::address::RedisUrlParts;
use self::{
    address::RedisAddress,
    call::Attempts,
    cluster::{Cluster, Redirect},
    connector::Connector,
    failure::timed_out,
    link::{Link, ReconnectHook},
    sentinel::Sentinels,
};
pub use self::{
    failure::RedisFailure,
    link::{DedicatedConnection, Era},
    writable::RedisMemory,
};

/// How long a call may take, unless its handle or its caller says otherwise.
const DEADLINE: Duration = Duration::from_millis(500);

/// How long a program waits at its start for the answer that shows the kind of a server.
const START_DEADLINE: Duration = Duration::from_secs(1);

/// A handle on Redis. Clones share its connections, which are opened when first used.
#[derive(Clone)]
pub struct Redis {
    servers: Servers,
    deadline: Duration,
    /// In a cluster, the slot that calls are about.
    slot: Option<u16>,
    is_guarded: bool,
}

#[derive(Clone)]
enum Servers {
    One(Arc<Link>),
    Cluster(Arc<Cluster>),
}

impl Redis {
    /// A handle that connects when first used.
    pub fn new(url: &SecretString) -> Result<Self, RedisError> {
        Self::with_reconnect_hook(url, || tracing::info!("connected to Redis again"))
    }

    /// Like [`Redis::new`]; calls `reconnected` each time a lost connection has been replaced.
    pub fn with_reconnect_hook(
        url: &SecretString,
        reconnected: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let reconnected: ReconnectHook = Arc::new(reconnected);
        let address = RedisAddress::parse(url.expose_secret()).map_err(|problem| {
            RedisError::from((ErrorKind::InvalidClientConfig, "the URL cannot be used", problem))
        })?;
        let began = Instant::now();
        let one = |connector| Servers::One(Arc::new(Link::new(connector, Arc::clone(&reconnected), began)));
        let servers = match address {
            RedisAddress::Server(info) => one(Connector::server(info)?),
            RedisAddress::Sentinels { sentinels, primary, server } => {
                one(Connector::Sentinels(Sentinels::new(sentinels, primary, server)?))
            }
            RedisAddress::Cluster { seeds } => Servers::Cluster(Arc::new(Cluster::new(seeds, reconnected))),
        };
        Ok(Self { servers, deadline: DEADLINE, slot: None, is_guarded: false })
    }

    /// The same connections, with another deadline for calls.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same connections, for calls about this key: in a cluster they go to the owner of its slot.
    #[must_use]
    pub fn at_key(&self, key: &str) -> Self {
        match &self.servers {
            Servers::One(_) => self.clone(),
            Servers::Cluster(_) => self.at_slot(slots::slot_of(key)),
        }
    }

    /// The same connections, for readers of what must not be older than what was confirmed: with sentinels or a cluster, calls fail
    /// while more than half of the sentinels, or of the primaries, do not confirm within two seconds that the server is
    /// still the primary, and if its era is unknown.
    #[must_use]
    pub fn guarded(self) -> Self {
        Self { is_guarded: true, ..self }
    }

    /// Splits items by the slot of their keys: each group can be one call. Returns the places of each group's items. Without a
    /// cluster there is one group.
    pub(crate) fn group_by_slot<T>(
        &self,
        items: &[T],
        key: impl Fn(&T) -> String,
    ) -> Vec<(Self, Vec<usize>)> {
        if let Servers::One(_) = &self.servers {
            return vec![(self.clone(), (0..items.len()).collect())];
        }
        let mut groups: HashMap<u16, Vec<usize>> = HashMap::new();
        for (place, item) in items.iter().enumerate() {
            groups.entry(slots::slot_of(&key(item))).or_default().push(place);
        }
        groups.into_iter().map(|(slot, places)| (self.at_slot(slot), places)).collect()
    }

    /// Splits items by the server that owns the slot of their keys, as far as that is known. Returns the places of each group's
    /// items.
    pub(crate) fn group_by_server<T>(
        &self,
        items: &[T],
        key: impl Fn(&T) -> String,
    ) -> Vec<(Self, Vec<usize>)> {
        let Servers::Cluster(cluster) = &self.servers else {
            return vec![(self.clone(), (0..items.len()).collect())];
        };
        let map = cluster.map();
        let mut groups: HashMap<_, (u16, Vec<usize>)> = HashMap::new();
        for (place, item) in items.iter().enumerate() {
            let slot = slots::slot_of(&key(item));
            groups.entry(map.owner(slot)).or_insert_with(|| (slot, Vec::new())).1.push(place);
        }
        groups.into_values().map(|(slot, places)| (self.at_slot(slot), places)).collect()
    }

    /// Whether keys have slots, each of which one of several servers owns.
    pub(crate) const fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// A handle on each primary, with a text for keys on it: a hash tag in a cluster, and nothing otherwise.
    pub(crate) async fn each_primary(&self) -> Result<Vec<(Self, String)>, RedisFailure> {
        let Servers::Cluster(cluster) = &self.servers else { return Ok(vec![(self.clone(), String::new())]) };
        let slots = if let Some(slot) = self.slot {
            vec![slot]
        } else {
            let slots = timeout(self.deadline, cluster.one_slot_of_each()).await;
            slots.unwrap_or(Err(timed_out()))?
        };
        Ok(slots
            .into_iter()
            .map(|slot| (self.at_slot(slot), format!("{{{}}}", slots::tag_of(slot))))
            .collect())
    }

    fn at_slot(&self, slot: u16) -> Self {
        Self { slot: Some(slot), ..self.clone() }
    }

    /// The id of the era of the server that calls went to last, if that is known. Asks nothing.
    pub(crate) async fn last_era(&self) -> Option<String> {
        timeout(self.deadline, self.link(None)).await.ok()?.ok()?.last_era()
    }

    /// Runs one command. It is sent again, once, if its connection turns out to be broken.
    pub async fn run_command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        self.call(self.deadline, Attempts::Two, |_| command).await
    }

    /// Runs a command that is made for the era of the server that it is sent to.
    pub(crate) async fn run_command_in_era<T: FromRedisValue>(
        &self,
        command: impl Fn(Option<&Era>) -> Cmd + Sync,
    ) -> Result<T, RedisFailure> {
        self.call(self.deadline, Attempts::Two, command).await
    }

    /// Runs a pipeline. It is sent again, once, if its connection turns out to be broken.
    pub async fn run_pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RedisFailure> {
        self.call(self.deadline, Attempts::Two, |_| pipeline).await
    }

    /// Runs a pipeline that is made for the era of the server that it is sent to.
    pub(crate) async fn run_pipeline_in_era<T: FromRedisValue>(
        &self,
        pipeline: impl Fn(Option<&Era>) -> Pipeline + Sync,
    ) -> Result<T, RedisFailure> {
        self.call(self.deadline, Attempts::Two, pipeline).await
    }

    /// Runs a pipeline that ignores errors and is made for the era of the server that it is sent to. Follows no slot that has moved.
    pub(crate) async fn run_pipeline_each_in_era(
        &self,
        pipeline: impl Fn(Option<&Era>) -> Pipeline + Sync,
    ) -> Result<Vec<Value>, RedisFailure> {
        self.call(self.deadline, Attempts::Two, pipeline).await
    }

    /// Runs a pipeline that ignores errors, and returns the answer to each command.
    pub async fn run_pipeline_each(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisFailure> {
        self.call_each(Attempts::Two, pipeline).await
    }

    /// Like [`Redis::run_pipeline_each`], for commands that must not run twice.
    pub async fn run_pipeline_each_once(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisFailure> {
        self.call_each(Attempts::One, pipeline).await
    }

    /// Runs a script, at most for `deadline`. It is sent again, once, if its connection turns out to be broken.
    pub async fn run_script<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        deadline: Duration,
    ) -> Result<T, RedisFailure> {
        self.call(deadline, Attempts::Two, |_| script).await
    }

    /// Runs a script, called as is right in the era of the server that it is sent to.
    pub(crate) async fn run_script_in_era<'a, T: FromRedisValue>(
        &self,
        script: impl Fn(Option<&Era>) -> ScriptInvocation<'a> + Sync,
    ) -> Result<T, RedisFailure> {
        self.call(self.deadline, Attempts::Two, script).await
    }

    /// Whether Redis answers, every primary of it. [`Redis::check_writable`] says whether it also takes writes.
    pub async fn ping(&self) -> Result<(), RedisFailure> {
        let command = redis::cmd("PING");
        let primaries = self.each_primary().await?;
        try_join_all(primaries.iter().map(|(primary, _)| primary.run_command::<()>(&command)))
            .await
            .map(|_| ())
    }

    /// Opens a connection for one caller.
    pub async fn connect_dedicated(&self) -> Result<DedicatedConnection, RedisFailure> {
        let connected = self.link(None).await?.connect_dedicated().await;
        Ok(connected.inspect_err(|_| self.look_again())?)
    }

    /// Reports an error on a dedicated connection: the slot may have moved.
    pub(crate) fn report_dedicated_error(&self, error: &RedisFailure) {
        if matches!(error, RedisFailure::Failed(error) if Redirect::from_error(error).is_some()) {
            self.look_again();
        }
    }

    /// Whether a confirmed write can be waited for until it is on disk: `WAITAOF` is known (Redis 7.2) and the
    /// append-only file is on.
    pub(crate) async fn waits_for_disk(&self) -> Result<bool, RedisFailure> {
        let ask = async {
            let (open, _) = self.link(None).await?.open().await?;
            if let Some(known) = open.waits_for_disk.get() {
                return Ok(*known);
            }
            match self.run_command::<String>(&redis::cmd("INFO")).await {
                Ok(info) => Ok(*open.waits_for_disk.get_or_init(|| can_wait_for_disk(&info))),
                // A user without the right to use INFO can still publish.
                Err(failure) if failure.has_code(&["NOPERM"]) => Ok(false),
                Err(failure) => Err(failure),
            }
        };
        timeout(self.deadline, ask).await.unwrap_or(Err(RedisFailure::Deadline(self.deadline)))
    }

    /// Closes the connections. A later call makes new ones.
    pub fn disconnect(&self) {
        match &self.servers {
            Servers::One(link) => link.disconnect(),
            Servers::Cluster(cluster) => cluster.disconnect(),
        }
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Checks at the start of a program that a URL is of the right kind for its server. One that does not answer is no error: it may
/// come later.
///
/// # Errors
///
/// For a plain URL of a cluster's node or of a sentinel, for a URL of a cluster or of sentinels that leads to another kind of server, and if
/// the sentinels do not know the primary's name. The text says how the URL must begin; it follows the setting's name.
pub async fn check_url(url: &SecretString) -> Result<(), String> {
    let asked = match Redis::new(url) {
        Ok(redis) => redis.with_deadline(START_DEADLINE).ping().await,
        Err(error) => Err(error.into()),
    };
    match asked {
        Err(RedisFailure::Failed(error)) if error.kind() == ErrorKind::InvalidClientConfig => {
            Err(error.detail().unwrap_or("cannot be used").to_owned())
        }
        _ => Ok(()),
    }
}

fn can_wait_for_disk(info: &str) -> bool {
    let version = info_field(info, "redis_version").and_then(|version| {
        let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
        Some((parts.next()?, parts.next()?))
    });
    version.is_some_and(|version| version >= (7, 2)) && info_field(info, "aof_enabled") == Some("1")
}

/// One field of what `INFO` answers.
pub(crate) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::can_wait_for_disk;

    #[test]
    fn waits_for_the_disk_only_if_the_server_can_and_has_the_file_on() {
        let info = |version, aof| {
            format!("# Server\r\nredis_version:{version}\r\n# Persistence\r\naof_enabled:{aof}\r\n")
        };
        assert!(can_wait_for_disk(&info("7.2.0", 1)));
        assert!(can_wait_for_disk(&info("8.0.1", 1)));
        assert!(!can_wait_for_disk(&info("7.0.15", 1)));
        assert!(!can_wait_for_disk(&info("7.4.1", 0)));
        assert!(!can_wait_for_disk(""));
    }
}
