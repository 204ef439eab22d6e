//! The queue for hashing passwords. It is bounded and refuses at once if it is full. Each network has a queue of its own
//! in front of it, so that a client with many connections delays only itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::AuthError;
use crate::limits::Network;

/// A request that has not started to hash after this time is refused; its client would soon give up.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How much work a queue accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Hashes at a time. Each takes a core and 19 MiB for some 20 ms.
    pub(crate) running: usize,
    /// Hashes at a time for one network: fewer, so that others can start at once.
    pub(crate) running_per_network: usize,
    /// Requests in the queue, including those whose hash is running.
    pub(crate) places: usize,
    /// The same of one network.
    pub(crate) places_per_network: usize,
}

/// Requests that wait to hash a password.
#[derive(Debug)]
pub(crate) struct PasswordQueue {
    limits: QueueLimits,
    permits: Arc<Semaphore>,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    places: usize,
    networks: HashMap<Network, NetworkQueue>,
}

/// The requests of one network; removed with its last request.
#[derive(Debug)]
struct NetworkQueue {
    places: usize,
    permits: Arc<Semaphore>,
}

/// A place in the queue, released when it is dropped.
#[derive(Debug)]
pub(crate) struct QueuePlace {
    queue: Arc<PasswordQueue>,
    network: Network,
    /// The permits of the network.
    permits: Arc<Semaphore>,
}

impl PasswordQueue {
    pub(crate) fn new(limits: QueueLimits) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(limits.running));
        Arc::new(Self { limits, permits, state: Mutex::default() })
    }

    /// Takes a place. Fails at once if the network or the queue has no place left.
    pub(crate) fn enter(self: &Arc<Self>, network: Network) -> Result<QueuePlace, AuthError> {
        let mut state = self.state();
        if state.networks.get(&network).is_some_and(|queue| queue.places >= self.limits.places_per_network) {
            return Err(AuthError::NetworkQueueFull(self.limits.places_per_network));
        }
        if state.places >= self.limits.places {
            return Err(queue_full());
        }
        state.places += 1;
        let of_network = state.networks.entry(network).or_insert_with(|| NetworkQueue {
            places: 0,
            permits: Arc::new(Semaphore::new(self.limits.running_per_network)),
        });
        of_network.places += 1;
        let permits = Arc::clone(&of_network.permits);
        Ok(QueuePlace { queue: Arc::clone(self), network, permits })
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuePlace {
    /// Waits for a permit, then runs `work` on a thread for blocking work.
    pub(crate) async fn run_blocking<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let permits = timeout(MAX_WAIT, self.acquire_permits()).await.map_err(|_| queue_full())?;
        let permits = permits.map_err(AuthError::internal)?;
        let work = move || {
            // Held by the work itself: a client that hangs up does not make room for another hash while this one runs.
            let _held = (permits, self);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(AuthError::internal)
    }

    /// Waits in the network's queue first, then in the queue of all.
    async fn acquire_permits(&self) -> Result<[OwnedSemaphorePermit; 2], AcquireError> {
        let of_network = Arc::clone(&self.permits).acquire_owned().await?;
        let of_all = Arc::clone(&self.queue.permits).acquire_owned().await?;
        Ok([of_network, of_all])
    }
}

/// Counts a request that is refused because the queue is full.
fn queue_full() -> AuthError {
    metrics::counter!("requests_shed_total").increment(1);
    AuthError::QueueFull
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.places -= 1;
        if let Some(of_network) = state.networks.get_mut(&self.network) {
            of_network.places -= 1;
            if of_network.places == 0 {
                state.networks.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::mpsc};

    use super::*;

    fn network(last: u8) -> Network {
        IpAddr::from([192, 0, 2, last]).into()
    }

    fn queue() -> Arc<PasswordQueue> {
        PasswordQueue::new(QueueLimits {
            running: 2,
            running_per_network: 1,
            places: 4,
            places_per_network: 3,
        })
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_accepts_requests_again_when_others_have_left() {
        let queue = queue();
        let mut places: Vec<QueuePlace> = (0..3).map(|_| queue.enter(network(1)).unwrap()).collect();
        let of_network = queue.enter(network(1)).unwrap_err();
        assert!(matches!(of_network, AuthError::NetworkQueueFull(3)), "{of_network}");
        places.push(queue.enter(network(2)).unwrap());
        let of_all = queue.enter(network(3)).unwrap_err();
        assert!(matches!(of_all, AuthError::QueueFull), "{of_all}");
        places.clear();
        assert!(queue.state().networks.is_empty(), "networks without requests are removed");
        assert!(queue.enter(network(1)).is_ok());
    }

    #[tokio::test]
    async fn a_network_with_many_requests_does_not_delay_another() {
        let queue = queue();
        let (release, held) = mpsc::channel::<()>();
        let first = tokio::spawn(queue.enter(network(1)).unwrap().run_blocking(move || held.recv()));
        let waiting = tokio::spawn(queue.enter(network(1)).unwrap().run_blocking(|| ()));
        queue.enter(network(2)).unwrap().run_blocking(|| ()).await.expect("it runs beside the first");
        assert!(!waiting.is_finished(), "one at a time from one network");
        release.send(()).unwrap();
        first.await.unwrap().expect("it ends").unwrap();
        waiting.await.unwrap().expect("it runs");
        testbed::eventually("all places are free", async || queue.state().places == 0).await;
    }
}
