//! Group commit, and group reading: jobs that wait while the lanes are busy share the next round trip.
//!
//! No timer collects them: a job that finds a free lane is alone in its batch and waits for nobody.

use std::{future::Future, sync::Arc};

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::platform::shutdown::Shutdown;

/// What lanes do with a batch.
pub trait BatchHandler<J>: Send + Sync + 'static {
    /// Does all of them, and gives back those that must wait for the next batch, for example because they concern
    /// the same order as another one of this batch. They come first then.
    fn handle(&self, batch: Vec<J>) -> impl Future<Output = Vec<J>> + Send;
}

/// A bounded queue, and the lanes that empty it. The lanes end when this is dropped.
pub struct Batcher<J>(mpsc::Sender<J>);

/// How many lanes, how much may wait, and how much may go at once.
#[derive(Clone, Copy, Debug)]
pub struct BatchConfig {
    /// Batches at a time.
    pub lanes: usize,
    /// Jobs that may wait.
    pub waiting: usize,
    /// Jobs of one batch, at most.
    pub batch: usize,
    /// Whether a batch leaves half of what is around, waiting or just done, to the next one. Callers who ask again when
    /// they are answered would otherwise meet in one large batch, and while it is done nobody is left to do anything else.
    pub halves: bool,
}

impl BatchConfig {
    /// How many may go at once while so many wait, after a batch of so many.
    fn next(self, waiting: usize, last: usize) -> usize {
        if self.halves { (waiting + last).div_ceil(2).clamp(1, self.batch) } else { self.batch }
    }
}

/// Too much waits already.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more requests wait than can be served in time")]
pub struct Overloaded;

impl<J: Send + 'static> Batcher<J> {
    /// Starts the lanes. A batch once begun is finished also while the process shuts down.
    pub fn start<W: BatchHandler<J>>(size: BatchConfig, work: W, shutdown: &Shutdown) -> Self {
        let (sender, receiver) = mpsc::channel(size.waiting);
        let (receiver, work) = (Arc::new(Mutex::new(receiver)), Arc::new(work));
        for _ in 0..size.lanes {
            tokio::spawn(lane(Arc::clone(&receiver), size, Arc::clone(&work), shutdown.clone()));
        }
        Self(sender)
    }

    /// Takes a job in, or refuses it at once.
    pub fn submit(&self, job: J) -> Result<(), Overloaded> {
        self.0.try_send(job).map_err(|_| Overloaded)
    }
}

async fn lane<J: Send + 'static, W: BatchHandler<J>>(
    queue: Arc<Mutex<mpsc::Receiver<J>>>,
    size: BatchConfig,
    work: Arc<W>,
    shutdown: Shutdown,
) {
    let mut held: Vec<J> = Vec::new();
    let mut last = 0;
    loop {
        let mut batch = std::mem::take(&mut held);
        if batch.is_empty() {
            let mut queue = queue.lock().await;
            let most = size.next(queue.len(), last);
            if queue.recv_many(&mut batch, most).await == 0 {
                return;
            }
        } else if let Ok(mut queue) = queue.try_lock() {
            while batch.len() < size.batch
                && let Ok(job) = queue.try_recv()
            {
                batch.push(job);
            }
        }
        last = batch.len();
        // A tracked task: neither a client that goes away nor a shutdown ends it, and a panic costs only its batch.
        let (done, finished) = oneshot::channel();
        let work = Arc::clone(&work);
        shutdown.spawn(async move {
            let _lane_is_gone = done.send(work.handle(batch).await);
        });
        held = finished.await.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use tokio::sync::Semaphore;

    use super::*;

    const SIZE: BatchConfig = BatchConfig { lanes: 1, waiting: 3, batch: 8, halves: false };

    /// Notes its batches, each of which waits for a permit.
    struct Noting {
        batches: Arc<StdMutex<Vec<Vec<u32>>>>,
        permits: Arc<Semaphore>,
    }

    impl BatchHandler<(u32, oneshot::Sender<()>)> for Noting {
        async fn handle(&self, batch: Vec<(u32, oneshot::Sender<()>)>) -> Vec<(u32, oneshot::Sender<()>)> {
            self.permits.acquire().await.unwrap().forget();
            self.batches.lock().unwrap().push(batch.iter().map(|(number, _)| *number).collect());
            assert!(batch.iter().all(|(number, _)| *number != 13), "unlucky");
            for (_, done) in batch {
                done.send(()).unwrap();
            }
            Vec::new()
        }
    }

    #[tokio::test]
    async fn jobs_that_wait_share_a_batch_and_a_full_queue_refuses() {
        let (batches, permits) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let work = Noting { batches: Arc::clone(&batches), permits: Arc::clone(&permits) };
        let lanes = Batcher::start(SIZE, work, &Shutdown::new());
        let mut waiting = Vec::new();
        let mut submit = |number| {
            let (done, finished) = oneshot::channel();
            waiting.push(finished);
            lanes.submit((number, done))
        };
        submit(1).unwrap();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        for number in 2..=4 {
            submit(number).unwrap();
        }
        assert!(submit(5).is_err());
        waiting.pop();
        permits.add_permits(2);
        for finished in waiting {
            finished.await.unwrap();
        }
        assert_eq!(*batches.lock().unwrap(), [vec![1], vec![2, 3, 4]]);
    }

    #[test]
    fn halves_become_equal_and_nothing_waits_for_company() {
        let size = BatchConfig { batch: 128, halves: true, ..SIZE };
        // 64 callers who ask again as soon as they are answered: those of the last batch come back during the next one.
        let (mut last, mut waiting) = (62, 2);
        for _ in 0..5 {
            let next = size.next(waiting, last);
            (waiting, last) = (waiting - next.min(waiting) + last, next.min(waiting));
        }
        assert_eq!((waiting, last), (32, 32));
        assert_eq!(size.next(1, 0), 1);
        assert_eq!(size.next(0, 0), 1);
        assert_eq!(size.next(1024, 128), 128);
        assert_eq!([SIZE.next(0, 0), SIZE.next(7, 0)], [8, 8]);
    }

    #[tokio::test]
    async fn a_panic_costs_only_its_batch() {
        let (batches, permits) = (Arc::default(), Arc::new(Semaphore::new(2)));
        let lanes = Batcher::start(SIZE, Noting { batches, permits }, &Shutdown::new());
        let (done, unlucky) = oneshot::channel();
        lanes.submit((13, done)).unwrap();
        assert!(unlucky.await.is_err());
        let (done, next) = oneshot::channel();
        lanes.submit((14, done)).unwrap();
        next.await.unwrap();
    }
}
