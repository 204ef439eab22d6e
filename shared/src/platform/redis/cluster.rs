//! The nodes of a cluster: a connection to each primary, and who owns which slot.
//!
//! The connections are [`Link`]s of our own and not the client library's cluster connection, because a request must know the server
//! that it is sent to: the keys of the cache carry the server's era, also if it is sent again elsewhere. So each connection
//! is checked and replaced as that to a single server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::sleep,
};

use super::{
    connector::{Connector, NO_CLUSTER},
    failure::wrong_url,
    lease::Lease,
    link::{Link, ReconnectHook},
    observer::{Observer, collect_answers},
    sentinel::at_host,
    slots::{self, ListedNode, NodeAddress, SlotMap},
};

/// Between two polls of the nodes.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// Between two polls at least, however often a request finds that a slot has moved.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// A cluster.
pub(super) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    reconnected: ReconnectHook,
    began: tokio::time::Instant,
    state: Mutex<ClusterState>,
    /// How long it is certain that the map is right.
    pub(super) lease: Lease,
    refresh: Arc<Notify>,
    polls: watch::Sender<u64>,
    poller: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct ClusterState {
    map: Arc<SlotMap>,
    links: HashMap<NodeAddress, Arc<Link>>,
    observers: HashMap<NodeAddress, Arc<Observer>>,
    last_error: Option<RedisError>,
    was_confirmed: bool,
}

/// Where a node sends a request on to.
#[derive(Clone, Debug)]
pub(super) struct Redirect {
    node: NodeAddress,
    /// For this request only, while the slot is being moved.
    pub(super) asking: bool,
}

impl Redirect {
    pub(super) fn from_error(error: &RedisError) -> Option<Self> {
        if error.redirect_node().is_none() {
            // That of one of several commands.
            let (_, first) = error.clone().into_server_errors()?.first()?.clone();
            let first = RedisError::from(first);
            first.redirect_node()?;
            return Self::from_error(&first);
        }
        let (node, _) = error.redirect_node()?;
        let (host, port) = node.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
        // A node that does not know its own name leaves it out, or writes a question mark.
        (!matches!(host, "" | "?")).then(|| Self { node: (host.to_owned(), port), asking })
    }
}

impl Cluster {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, reconnected: ReconnectHook) -> Self {
        Self {
            seeds,
            reconnected,
            began: tokio::time::Instant::now(),
            state: Mutex::default(),
            lease: Lease::new(),
            refresh: Arc::default(),
            polls: watch::Sender::new(0),
            poller: Mutex::default(),
        }
    }

    /// The connection to the owner of a slot, or to any primary.
    pub(super) async fn link_for(self: &Arc<Self>, slot: Option<u16>) -> RedisResult<Arc<Link>> {
        let mut polls = self.polls.subscribe();
        self.poll_in_background();
        if let Some(link) = self.find(slot)? {
            return Ok(link);
        }
        // Perhaps somebody owns it by now.
        self.look_again();
        let _polled = polls.changed().await;
        self.find(slot)?.ok_or_else(|| self.lock().last_error.clone().unwrap_or_else(unowned))
    }

    /// The connection to a node that another one has named.
    pub(super) fn link_to(&self, redirect: &Redirect) -> RedisResult<Arc<Link>> {
        self.link_at(&redirect.node)
    }

    /// One slot of each primary.
    pub(super) async fn one_slot_of_each(self: &Arc<Self>) -> RedisResult<Vec<u16>> {
        self.link_for(None).await?;
        Ok(self.map().one_slot_of_each())
    }

    /// Has the nodes polled at once.
    pub(super) fn look_again(&self) {
        self.refresh.notify_one();
    }

    pub(super) fn disconnect(&self) {
        self.lock().links.values().for_each(|link| link.disconnect());
    }

    fn find(&self, slot: Option<u16>) -> RedisResult<Option<Arc<Link>>> {
        let map = self.map();
        let Some(slot) = slot.or_else(|| map.one_slot_of_each().first().copied()) else { return Ok(None) };
        map.owner(slot).map(|owner| self.link_at(owner)).transpose()
    }

    fn link_at(&self, node: &NodeAddress) -> RedisResult<Arc<Link>> {
        let mut state = self.lock();
        if let Some(link) = state.links.get(node) {
            return Ok(Arc::clone(link));
        }
        let connector = Connector::node(self.node_info(node))?;
        let link = Arc::new(Link::new(connector, Arc::clone(&self.reconnected), self.began));
        state.links.insert(node.clone(), Arc::clone(&link));
        Ok(link)
    }

    fn poll_in_background(self: &Arc<Self>) {
        let mut poller = self.poller.lock().unwrap_or_else(PoisonError::into_inner);
        if poller.as_ref().is_none_or(JoinHandle::is_finished) {
            *poller = Some(tokio::spawn(poll_until_dropped(Arc::downgrade(self), Arc::clone(&self.refresh))));
        }
    }

    /// Asks all nodes for the owners of the slots; the seeds too, unless the nodes are enough.
    async fn poll(&self) {
        let asked = Instant::now();
        let (known, needs_seeds) = {
            let state = self.lock();
            (state.map.nodes().to_vec(), !state.was_confirmed)
        };
        let seeds = self.seeds.iter().filter(|_| needs_seeds).filter_map(address_of);
        let mut nodes: Vec<NodeAddress> = known.into_iter().chain(seeds).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let (answers, error) = collect_answers(nodes.iter().map(|node| self.ask(node))).await;
        let (map, is_confirmed) = self.map().merge(&answers);
        if is_confirmed {
            self.lease.renew(asked);
        }
        let mut state = self.lock();
        let kept = |node: &NodeAddress| map.nodes().contains(node);
        state.links.retain(|node, _| kept(node));
        state.observers.retain(|node, _| kept(node) || nodes.contains(node));
        if state.was_confirmed && !is_confirmed {
            tracing::warn!(
                "Redis: fewer than half of the cluster's primaries answer: cached orders are not used until they do"
            );
        }
        state.was_confirmed = is_confirmed;
        state.map = Arc::new(map);
        state.last_error = error.filter(|_| answers.is_empty());
    }

    async fn ask(&self, node: &NodeAddress) -> RedisResult<Vec<ListedNode>> {
        let observer = self.observer_at(node)?;
        let mut question = Pipeline::new();
        question.cmd("CLUSTER").arg("NODES");
        let (answer,): (String,) = observer.ask(&question).await.map_err(|error| {
            if error.to_string().contains("cluster support disabled") { wrong_url(NO_CLUSTER) } else { error }
        })?;
        let by_name = matches!(self.seeds[0].addr(), ConnectionAddr::TcpTls { .. });
        Ok(slots::parse_nodes(&answer, node, by_name))
    }

    fn observer_at(&self, node: &NodeAddress) -> RedisResult<Arc<Observer>> {
        let mut state = self.lock();
        if let Some(observer) = state.observers.get(node) {
            return Ok(Arc::clone(observer));
        }
        let observer = Arc::new(Observer::new(self.node_info(node))?);
        state.observers.insert(node.clone(), Arc::clone(&observer));
        Ok(observer)
    }

    fn node_info(&self, (host, port): &NodeAddress) -> ConnectionInfo {
        let seed = self.seeds[0].clone();
        let address = at_host(seed.addr(), host, *port);
        seed.set_addr(address)
    }

    pub(super) fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.lock().map)
    }

    fn lock(&self) -> MutexGuard<'_, ClusterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn poll_until_dropped(cluster: Weak<Cluster>, refresh: Arc<Notify>) {
    while let Some(cluster) = cluster.upgrade() {
        cluster.poll().await;
        cluster.polls.send_modify(|polls| *polls += 1);
        drop(cluster);
        sleep(POLL_PAUSE).await;
        tokio::select! {
            () = refresh.notified() => {}
            () = sleep(POLL_EVERY) => {}
        }
    }
}

fn address_of(info: &ConnectionInfo) -> Option<NodeAddress> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

fn unowned() -> RedisError {
    (ErrorKind::Server(ServerErrorKind::ClusterDown), "no node of the cluster owns the slot").into()
}
