//! Handlers that fail on demand.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use worker::handlers::{EventHandler, HandlerError, HandlerEvent};

/// What happens to an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The handler panics.
    Panic,
    /// The handler never answers.
    Hang,
    /// It fails this many times, and then succeeds.
    Transient(usize),
    /// It can never succeed.
    Permanent,
}

/// Fails on certain orders, and keeps how often each order was handled.
#[derive(Default)]
pub(crate) struct Faulty {
    faults: BTreeMap<i64, Fault>,
    failed: AtomicUsize,
    handled: Mutex<BTreeMap<i64, usize>>,
    pub(crate) calls: AtomicUsize,
}

impl Faulty {
    pub(crate) fn new(faults: impl IntoIterator<Item = (i64, Fault)>) -> Arc<Self> {
        Arc::new(Self { faults: faults.into_iter().collect(), ..Self::default() })
    }

    /// The orders that were handled with success.
    pub(crate) fn handled(&self) -> Vec<i64> {
        self.handled.lock().expect("no panic under this lock").keys().copied().collect()
    }
}

#[async_trait]
impl EventHandler for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        for item in batch {
            match self.faults.get(&item.event.data.order_id.get()) {
                Some(Fault::Panic) => panic!("told to panic"),
                Some(Fault::Hang) => std::future::pending().await,
                Some(Fault::Permanent) => return Err(HandlerError::Permanent("told to refuse".into())),
                Some(Fault::Transient(times)) if self.failed.fetch_add(1, Ordering::SeqCst) < *times => {
                    return Err(HandlerError::Transient("told to fail".into()));
                }
                None | Some(Fault::Transient(_)) => {}
            }
        }
        let mut handled = self.handled.lock().expect("no panic under this lock");
        for item in batch {
            *handled.entry(item.event.data.order_id.get()).or_default() += 1;
        }
        Ok(())
    }
}

/// Counts how often the handler inside of it found its dependency down.
pub(crate) struct Watched {
    pub(crate) inner: Arc<dyn EventHandler>,
    pub(crate) outages: AtomicUsize,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn EventHandler>) -> Arc<Self> {
        Arc::new(Self { inner, outages: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl EventHandler for Watched {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        let answer = self.inner.handle(batch).await;
        if matches!(answer, Err(HandlerError::Unavailable(_))) {
            self.outages.fetch_add(1, Ordering::SeqCst);
        }
        answer
    }
}

/// Does nothing until it is let, then lets everything pass.
pub(crate) struct Gate {
    pub(crate) waiting: AtomicUsize,
    pub(crate) open: Semaphore,
}

impl Gate {
    pub(crate) fn closed() -> Arc<Self> {
        Arc::new(Self { waiting: AtomicUsize::new(0), open: Semaphore::new(0) })
    }
}

#[async_trait]
impl EventHandler for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        self.waiting.fetch_add(batch.len(), Ordering::SeqCst);
        let _open = tokio::time::timeout(Duration::from_mins(1), self.open.acquire()).await;
        Ok(())
    }
}
