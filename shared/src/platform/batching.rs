//! Group commit and group reading: jobs that wait while the workers are busy share the next round trip.
//!
//! There is no timer: an idle worker takes everything that is queued, so a single job never waits for others.

use std::{future::Future, sync::Arc};

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::platform::shutdown::Shutdown;

/// What a worker does with a batch.
pub trait BatchHandler<J>: Send + Sync + 'static {
    /// Handles all jobs, and returns those that must wait for the next batch, for example because they concern the same
    /// order as another job of this batch. They are the first of the next batch.
    fn handle(&self, batch: Vec<J>) -> impl Future<Output = Vec<J>> + Send;
}

/// A bounded queue and the workers that empty it. The workers end when this is dropped.
pub struct Batcher<J>(mpsc::Sender<J>);

/// The limits of a [`Batcher`].
#[derive(Clone, Copy, Debug)]
pub struct BatchConfig {
    /// How many batches are handled at the same time.
    pub workers: usize,
    /// How many jobs can wait.
    pub queue_size: usize,
    /// How many jobs a batch has at most.
    pub batch_size: usize,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more requests wait than can be served in time")]
pub struct Overloaded;

impl<J: Send + 'static> Batcher<J> {
    /// Starts the workers. A batch that has begun is finished, also during shutdown.
    pub fn start<H: BatchHandler<J>>(config: BatchConfig, handler: H, shutdown: &Shutdown) -> Self {
        let (sender, receiver) = mpsc::channel(config.queue_size);
        let (receiver, handler) = (Arc::new(Mutex::new(receiver)), Arc::new(handler));
        for _ in 0..config.workers {
            let worker = handle_batches(
                Arc::clone(&receiver),
                config.batch_size,
                Arc::clone(&handler),
                shutdown.clone(),
            );
            tokio::spawn(worker);
        }
        Self(sender)
    }

    /// Queues a job, or refuses it at once.
    pub fn submit(&self, job: J) -> Result<(), Overloaded> {
        self.0.try_send(job).map_err(|_| Overloaded)
    }
}

/// One worker: handles batches until the queue is closed.
async fn handle_batches<J: Send + 'static, H: BatchHandler<J>>(
    queue: Arc<Mutex<mpsc::Receiver<J>>>,
    batch_size: usize,
    handler: Arc<H>,
    shutdown: Shutdown,
) {
    let mut postponed: Vec<J> = Vec::new();
    loop {
        let mut batch = std::mem::take(&mut postponed);
        if batch.is_empty() {
            if queue.lock().await.recv_many(&mut batch, batch_size).await == 0 {
                return;
            }
        } else if let Ok(mut queue) = queue.try_lock() {
            while batch.len() < batch_size
                && let Ok(job) = queue.try_recv()
            {
                batch.push(job);
            }
        }
        // A tracked task: neither a client that disconnects nor a shutdown ends it, and a panic costs only its batch.
        let (done, finished) = oneshot::channel();
        let handler = Arc::clone(&handler);
        shutdown.spawn(async move {
            let _worker_is_gone = done.send(handler.handle(batch).await);
        });
        postponed = finished.await.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use tokio::sync::Semaphore;

    use super::*;

    const CONFIG: BatchConfig = BatchConfig { workers: 1, queue_size: 3, batch_size: 8 };

    /// Records its batches, each of which waits for a permit.
    struct Recorder {
        batches: Arc<StdMutex<Vec<Vec<u32>>>>,
        permits: Arc<Semaphore>,
    }

    impl BatchHandler<(u32, oneshot::Sender<()>)> for Recorder {
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
        let recorder = Recorder { batches: Arc::clone(&batches), permits: Arc::clone(&permits) };
        let queue = Batcher::start(CONFIG, recorder, &Shutdown::new());
        let mut waiting = Vec::new();
        let mut submit = |number| {
            let (done, finished) = oneshot::channel();
            waiting.push(finished);
            queue.submit((number, done))
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

    #[tokio::test]
    async fn a_panic_costs_only_its_batch() {
        let (batches, permits) = (Arc::default(), Arc::new(Semaphore::new(2)));
        let queue = Batcher::start(CONFIG, Recorder { batches, permits }, &Shutdown::new());
        let (done, unlucky) = oneshot::channel();
        queue.submit((13, done)).unwrap();
        assert!(unlucky.await.is_err());
        let (done, next) = oneshot::channel();
        queue.submit((14, done)).unwrap();
        next.await.unwrap();
    }
}
