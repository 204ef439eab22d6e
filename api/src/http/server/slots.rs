//! Slots for connections: how many there are, how many of them one address can have, and which connection is closed if
//! none is free.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use metrics::counter;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::activity::Activity;
use crate::limits::Network;

/// How often to look for a connection to close while every connection handles a request.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// One of 128 connections is closed at a time, so that a flood of new ones does not search all connections for each.
const CLOSE_ONE_OF: usize = 128;
/// The connection of a client that has not read for this long is closed if others need its memory.
const UNREAD_LIMIT: Duration = Duration::from_secs(1);
/// At most one warning is logged in this time.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The slots of one server.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    free: Arc<Semaphore>,
    total: usize,
    per_address: Option<usize>,
    epoch: Instant,
    next_id: AtomicU64,
    warned: Mutex<Option<Instant>>,
    /// Open connections by network and id, without those that must close.
    open: Mutex<OpenConnections>,
}

type OpenConnections = HashMap<Network, HashMap<u64, Arc<OpenConnection>>>;

#[derive(Debug)]
struct OpenConnection {
    activity: Arc<Activity>,
    close: Notify,
}

/// The slot of one connection, released when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    network: Network,
    id: u64,
    connection: Arc<OpenConnection>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlots {
    pub(super) fn new(total: usize, per_address: Option<usize>) -> Self {
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
            per_address: per_address.map(|most| most.min(total / 4).max(1)),
            epoch: Instant::now(),
            next_id: AtomicU64::new(0),
            warned: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// Returns a slot for a new connection from `address`. If its address or all addresses have used up their slots,
    /// connections that have waited longest for their clients are closed. Returns `None` if the address has too many
    /// connections and each handles a request.
    pub(super) async fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let network = Network::from(address);
        if let Some(most) = self.per_address
            && self.count_open(network) >= most
            && self.close_lowest("address_full", most, |of, activity| {
                activity.waiting_rank().filter(|_| of == network)
            }) == 0
        {
            counter!("http_connections_closed_total", "reason" => "refused").increment(1);
            return None;
        }
        let permit = self.acquire_permit().await?;
        let id = self.next_id.fetch_add(1, Relaxed);
        let activity = Arc::new(Activity::new(self.epoch));
        let connection = Arc::new(OpenConnection { activity, close: Notify::new() });
        self.lock_open().entry(network).or_default().insert(id, Arc::clone(&connection));
        Some(ConnectionSlot { slots: Arc::clone(self), network, id, connection, _permit: permit })
    }

    /// Closes the connections that have waited longest for their clients.
    pub(super) fn close_waiting(&self) {
        self.close_lowest("full", self.total, |_, activity| activity.waiting_rank());
    }

    /// Closes the connections whose clients have not read for the longest time.
    pub(super) fn close_unread(&self) {
        self.close_lowest("unread", self.total, |_, activity| {
            activity.unread_for().filter(|unread| *unread >= UNREAD_LIMIT).map(Reverse)
        });
    }

    async fn acquire_permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return Some(permit);
            }
            self.close_waiting();
            let freed = Arc::clone(&self.free).acquire_owned();
            if let Ok(permit) = tokio::time::timeout(RETRY_EVERY, freed).await {
                return permit.ok();
            }
        }
    }

    /// Requests that the connections with the lowest ranks close: one of 128 of `out_of`. Returns how many.
    fn close_lowest<R: Ord>(
        &self,
        reason: &'static str,
        out_of: usize,
        rank: impl Fn(Network, &Activity) -> Option<R>,
    ) -> usize {
        let most = (out_of / CLOSE_ONE_OF).max(1);
        let mut open = self.lock_open();
        let mut ranked = Vec::new();
        for (network, connections) in open.iter() {
            for (id, connection) in connections {
                ranked.extend(rank(*network, &connection.activity).map(|rank| (rank, *id, *network)));
            }
        }
        if ranked.len() > most {
            // Of those that have waited equally long, to the millisecond, the older ones are closed.
            ranked.select_nth_unstable_by(most - 1, |(a, a_id, _), (b, b_id, _)| (a, a_id).cmp(&(b, b_id)));
            ranked.truncate(most);
        }
        for (_, id, network) in &ranked {
            if let Some(connection) = remove(&mut open, *network, *id) {
                connection.close.notify_one();
            }
        }
        drop(open);
        if !ranked.is_empty() {
            self.record_closed(reason, ranked.len());
        }
        ranked.len()
    }

    fn record_closed(&self, reason: &'static str, closed: usize) {
        counter!("http_connections_closed_total", "reason" => reason)
            .increment(u64::try_from(closed).unwrap_or(u64::MAX));
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(
                reason,
                connections = self.total,
                connections_per_address = self.per_address,
                "connections that wait for their clients are closed to make room"
            );
        }
    }

    fn count_open(&self, network: Network) -> usize {
        self.lock_open().get(&network).map_or(0, HashMap::len)
    }

    fn lock_open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// What the connection is doing.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.connection.activity
    }

    /// The connection, as the handlers of its requests see it.
    pub(super) fn handle(&self) -> ConnectionHandle {
        ConnectionHandle(Arc::clone(&self.connection))
    }

    /// Resolves when the slot is needed for another connection, or the connection must be closed for another reason.
    pub(super) async fn close_requested(&self) {
        self.connection.close.notified().await;
    }
}

/// The connection of a request, for a response that goes on until something ends it; in the extensions of each request.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionHandle(Arc<OpenConnection>);

impl ConnectionHandle {
    /// Closes the connection, without waiting for its client.
    pub(crate) fn close(&self) {
        self.0.close.notify_one();
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        // It is removed already if it must close.
        remove(&mut self.slots.lock_open(), self.network, self.id);
    }
}

fn remove(open: &mut OpenConnections, network: Network, id: u64) -> Option<Arc<OpenConnection>> {
    let connections = open.get_mut(&network)?;
    let connection = connections.remove(&id);
    if connections.is_empty() {
        open.remove(&network);
    }
    connection
}

#[cfg(test)]
mod tests {
    use super::{super::activity::ConnectionState, *};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn acquire(slots: &Arc<ConnectionSlots>, from: &str) -> ConnectionSlot {
        slots.acquire(address(from)).await.expect("a slot")
    }

    fn must_close(slot: &ConnectionSlot) -> bool {
        futures_util::FutureExt::now_or_never(slot.close_requested()).is_some()
    }

    #[tokio::test]
    async fn an_address_that_has_used_up_its_slots_loses_its_own_connections() {
        let slots = Arc::new(ConnectionSlots::new(100, Some(2)));
        let other = acquire(&slots, "192.0.2.9").await;
        let first = acquire(&slots, "192.0.2.1").await;
        let second = acquire(&slots, "192.0.2.1").await;
        first.activity().set_state(ConnectionState::Handling);
        let _third = acquire(&slots, "192.0.2.1").await;
        assert_eq!([&other, &first, &second].map(must_close), [false, false, true]);
    }

    #[tokio::test]
    async fn an_address_whose_connections_all_handle_requests_gets_no_slot() {
        let slots = Arc::new(ConnectionSlots::new(100, Some(1)));
        let first = acquire(&slots, "2001:db8::1").await;
        first.activity().set_state(ConnectionState::Handling);
        assert!(slots.acquire(address("2001:db8::2")).await.is_none());
        drop(first);
        assert!(slots.acquire(address("2001:db8::2")).await.is_some());
    }

    #[tokio::test]
    async fn if_all_slots_are_used_up_the_longest_idle_connection_is_closed() {
        let slots = Arc::new(ConnectionSlots::new(2, None));
        let first = acquire(&slots, "192.0.2.1").await;
        let second = acquire(&slots, "192.0.2.2").await;
        second.activity().set_state(ConnectionState::ReceivingBody);
        let third = async {
            first.close_requested().await;
            drop(first);
        };
        let (third, ()) = tokio::join!(slots.acquire(address("192.0.2.3")), third);
        assert!(third.is_some());
        assert!(!must_close(&second));
    }

    #[tokio::test]
    async fn of_connections_that_have_waited_equally_long_the_oldest_is_closed() {
        // All of them begin to wait within a few microseconds.
        let slots = Arc::new(ConnectionSlots::new(50, None));
        let mut open = Vec::new();
        for index in 0..50 {
            open.push(acquire(&slots, &format!("192.0.2.{index}")).await);
        }
        for oldest in 0..50 {
            slots.close_waiting();
            let closed: Vec<_> = (0..50).filter(|index| must_close(&open[*index])).collect();
            assert_eq!(closed, [oldest]);
        }
    }
}
