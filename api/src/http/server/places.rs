//! Places for connections: how many there are, how many of them one address may have, and who leaves when none is free.

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

/// While every connection handles a request: how often to look for one that has finished.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// One of so many connections is closed at a time, so that a flood of new ones does not look through all for each.
const CLOSED_AT_ONCE: usize = 128;
/// A client that has not read for so long has to give its memory to others that need it.
const UNREAD: Duration = Duration::from_secs(1);
/// At most one warning in this time.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The places of one server.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    total: usize,
    per_address: Option<usize>,
    epoch: Instant,
    next_id: AtomicU64,
    warned: Mutex<Option<Instant>>,
    /// Open connections by network and number, without those that were told to close.
    open: Mutex<HashMap<Network, HashMap<u64, Arc<Connection>>>>,
}

#[derive(Debug)]
struct Connection {
    activity: Arc<Activity>,
    close: Notify,
}

/// A connection's place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    network: Network,
    id: u64,
    connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
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

    /// A place for a new connection from `address`. If its address or all together have used theirs up, those that have
    /// waited longest for their client are closed. `None` if the address has too many and each handles a request.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = Network::from(address);
        if let Some(most) = self.per_address
            && self.count(network) >= most
            && self.close("address_full", most, |of, activity| activity.waiting().filter(|_| of == network))
                == 0
        {
            counter!("http_connections_closed_total", "reason" => "refused").increment(1);
            return None;
        }
        let permit = self.permit().await?;
        let id = self.next_id.fetch_add(1, Relaxed);
        let activity = Arc::new(Activity::new(self.epoch));
        let connection = Arc::new(Connection { activity, close: Notify::new() });
        self.open().entry(network).or_default().insert(id, Arc::clone(&connection));
        Some(Place { places: Arc::clone(self), network, id, connection, _permit: permit })
    }

    /// Closes the connections that have waited longest for their clients.
    pub(super) fn close_waiting(&self) {
        self.close("full", self.total, |_, activity| activity.waiting());
    }

    /// Closes the connections whose clients have not read for longest what is sent to them.
    pub(super) fn close_unread(&self) {
        self.close("unread", self.total, |_, activity| {
            activity.unread_for().filter(|unread| *unread >= UNREAD).map(Reverse)
        });
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return Some(permit);
            }
            self.close_waiting();
            let freed = Arc::clone(&self.free).acquire_owned();
            if let Ok(permit) = tokio::time::timeout(LOOK_AGAIN, freed).await {
                return permit.ok();
            }
        }
    }

    /// Tells connections to close: a share of `out_of`, those with the smallest ranks. Returns how many.
    fn close<R: Ord>(
        &self,
        reason: &'static str,
        out_of: usize,
        rank: impl Fn(Network, &Activity) -> Option<R>,
    ) -> usize {
        let most = (out_of / CLOSED_AT_ONCE).max(1);
        let mut open = self.open();
        let mut ranked = Vec::new();
        for (network, connections) in open.iter() {
            for (id, connection) in connections {
                ranked.extend(rank(*network, &connection.activity).map(|rank| (rank, *network, *id)));
            }
        }
        if ranked.len() > most {
            ranked.select_nth_unstable_by(most - 1, |(a, ..), (b, ..)| a.cmp(b));
            ranked.truncate(most);
        }
        for (_, network, id) in &ranked {
            if let Some(connection) = remove(&mut open, *network, *id) {
                connection.close.notify_one();
            }
        }
        drop(open);
        if !ranked.is_empty() {
            self.report(reason, ranked.len());
        }
        ranked.len()
    }

    fn report(&self, reason: &'static str, closed: usize) {
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

    fn count(&self, network: Network) -> usize {
        self.open().get(&network).map_or(0, HashMap::len)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Network, HashMap<u64, Arc<Connection>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What the connection is doing.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.connection.activity
    }

    /// Resolves when somebody else needs the place.
    pub(super) async fn closed(&self) {
        self.connection.close.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It is gone already if it was told to close.
        remove(&mut self.places.open(), self.network, self.id);
    }
}

fn remove(
    open: &mut HashMap<Network, HashMap<u64, Arc<Connection>>>,
    network: Network,
    id: u64,
) -> Option<Arc<Connection>> {
    let connections = open.get_mut(&network)?;
    let connection = connections.remove(&id);
    if connections.is_empty() {
        open.remove(&network);
    }
    connection
}

#[cfg(test)]
mod tests {
    use super::{super::activity::Doing, *};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn take(places: &Arc<Places>, from: &str) -> Place {
        places.take(address(from)).await.expect("a place")
    }

    fn is_told(place: &Place) -> bool {
        futures_util::FutureExt::now_or_never(place.closed()).is_some()
    }

    #[tokio::test]
    async fn an_address_that_has_used_up_its_places_loses_its_own() {
        let places = Arc::new(Places::new(100, Some(2)));
        let other = take(&places, "192.0.2.9").await;
        let first = take(&places, "192.0.2.1").await;
        let second = take(&places, "192.0.2.1").await;
        first.activity().begin(Doing::Working);
        let _third = take(&places, "192.0.2.1").await;
        assert_eq!([&other, &first, &second].map(is_told), [false, false, true]);
    }

    #[tokio::test]
    async fn an_address_whose_connections_are_all_at_work_gets_no_more() {
        let places = Arc::new(Places::new(100, Some(1)));
        let first = take(&places, "2001:db8::1").await;
        first.activity().begin(Doing::Working);
        assert!(places.take(address("2001:db8::2")).await.is_none());
        drop(first);
        assert!(places.take(address("2001:db8::2")).await.is_some());
    }

    #[tokio::test]
    async fn when_all_places_are_used_up_the_longest_idle_connection_leaves() {
        let places = Arc::new(Places::new(2, None));
        let first = take(&places, "192.0.2.1").await;
        let second = take(&places, "192.0.2.2").await;
        second.activity().begin(Doing::Receiving);
        let third = async {
            first.closed().await;
            drop(first);
        };
        let (third, ()) = tokio::join!(places.take(address("192.0.2.3")), third);
        assert!(third.is_some());
        assert!(!is_told(&second));
    }
}
