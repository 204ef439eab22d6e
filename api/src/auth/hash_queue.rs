//! Waiting for a turn to hash a password: in a bounded queue that refuses at once, and in one line for each network, so
//! that one client with many connections delays itself and nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderValue, header};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    http::error::{ApiError, Code},
    limits::Network,
};

/// A request that has not had its turn after this time is refused; its client would soon give up.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How much work a queue takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Hashes at a time. Each takes a core and 19 MiB for some 20 ms.
    pub(crate) running: usize,
    /// Hashes at a time for one network: fewer, so that others find a free turn at once.
    pub(crate) running_of_network: usize,
    /// Requests in the queue, with those whose hash is running.
    pub(crate) places: usize,
    /// The same for one network.
    pub(crate) places_of_network: usize,
}

/// Requests that wait for a turn to hash.
#[derive(Debug)]
pub(crate) struct HashQueue {
    limits: QueueLimits,
    turns: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    places: usize,
    lines: HashMap<Network, Line>,
}

/// The requests of one network. It exists only as long as there are any.
#[derive(Debug)]
struct Line {
    places: usize,
    turns: Arc<Semaphore>,
}

/// A place in the queue, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Arc<HashQueue>,
    network: Network,
    /// The turns of the network.
    turns: Arc<Semaphore>,
}

impl HashQueue {
    pub(crate) fn new(limits: QueueLimits) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(limits.running));
        Arc::new(Self { limits, turns, taken: Mutex::default() })
    }

    /// Takes a place, or refuses at once: 429 if the network has too many, 503 if all have.
    pub(crate) fn enter(self: &Arc<Self>, network: Network) -> Result<Place, ApiError> {
        let mut taken = self.taken();
        if taken.lines.get(&network).is_some_and(|line| line.places >= self.limits.places_of_network) {
            let detail = format!(
                "more than {} requests with a password at once from one address",
                self.limits.places_of_network
            );
            return Err(ApiError::new(Code::RateLimited, detail)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        if taken.places >= self.limits.places {
            return Err(shed());
        }
        taken.places += 1;
        let line = taken.lines.entry(network).or_insert_with(|| Line {
            places: 0,
            turns: Arc::new(Semaphore::new(self.limits.running_of_network)),
        });
        line.places += 1;
        let turns = Arc::clone(&line.turns);
        Ok(Place { queue: Arc::clone(self), network, turns })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for a turn, then runs `work` on a thread that may be busy for long.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = timeout(LONGEST_WAIT, self.turn()).await.map_err(|_| shed())?;
        let turn = turn.map_err(ApiError::internal)?;
        let work = move || {
            // Held by the work itself: a client that hangs up does not make room for another hash meanwhile.
            let _held = (turn, self);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)
    }

    /// First in the network's line, then among all.
    async fn turn(&self) -> Result<[OwnedSemaphorePermit; 2], AcquireError> {
        let of_network = Arc::clone(&self.turns).acquire_owned().await?;
        let of_all = Arc::clone(&self.queue.turns).acquire_owned().await?;
        Ok([of_network, of_all])
    }
}

/// 503, counted.
fn shed() -> ApiError {
    metrics::counter!("requests_shed_total").increment(1);
    ApiError::unavailable("too many requests wait for a password to be hashed")
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.queue.taken();
        taken.places -= 1;
        if let Some(line) = taken.lines.get_mut(&self.network) {
            line.places -= 1;
            if line.places == 0 {
                taken.lines.remove(&self.network);
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

    fn queue() -> Arc<HashQueue> {
        HashQueue::new(QueueLimits { running: 2, running_of_network: 1, places: 4, places_of_network: 3 })
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_takes_requests_again_when_others_have_left() {
        let queue = queue();
        let mut places: Vec<Place> = (0..3).map(|_| queue.enter(network(1)).unwrap()).collect();
        let of_network = queue.enter(network(1)).unwrap_err();
        assert_eq!(of_network.code(), Code::RateLimited);
        places.push(queue.enter(network(2)).unwrap());
        let of_all = queue.enter(network(3)).unwrap_err();
        assert_eq!(of_all.code(), Code::Unavailable);
        for refused in [of_network, of_all] {
            assert!(refused.headers().contains_key(header::RETRY_AFTER));
        }
        places.clear();
        assert!(queue.taken().lines.is_empty(), "nothing is kept of networks that have left");
        assert!(queue.enter(network(1)).is_ok());
    }

    #[tokio::test]
    async fn a_network_whose_line_is_long_does_not_delay_another() {
        let queue = queue();
        let (release, held) = mpsc::channel::<()>();
        let first = tokio::spawn(queue.enter(network(1)).unwrap().run(move || held.recv()));
        let waiting = tokio::spawn(queue.enter(network(1)).unwrap().run(|| ()));
        queue.enter(network(2)).unwrap().run(|| ()).await.expect("it has its turn beside the first");
        assert!(!waiting.is_finished(), "one at a time from one network");
        release.send(()).unwrap();
        first.await.unwrap().expect("it ends").unwrap();
        waiting.await.unwrap().expect("it has its turn");
        testbed::eventually("all places are free", async || queue.taken().places == 0).await;
    }
}
