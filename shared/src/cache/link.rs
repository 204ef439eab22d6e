//! The connections to Redis: a few, shared by everyone, each pipelining what is sent through it.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, aio::MultiplexedConnection};

/// Connections. Pipelining makes one enough for throughput; a second keeps a large answer from standing before all.
const LINKS: usize = 2;
/// How long connecting may take; it goes on in the background when its caller has given up.
const CONNECT: Duration = Duration::from_millis(500);

/// Connections that are made when first used and replaced when they break. The client library's own manager never
/// leaves a connection whose peer has silently gone, so this is done here.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    client: Client,
    slots: [Slot; LINKS],
    next: AtomicUsize,
    generation: AtomicU64,
}

#[derive(Default)]
struct Slot {
    ready: RwLock<Option<Connected>>,
    connecting: tokio::sync::Mutex<()>,
}

/// A connection, and the generation it belongs to.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) generation: u64,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        Self(Arc::new(Inner {
            client,
            slots: Default::default(),
            next: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
        }))
    }

    /// The next connection in turn.
    pub(super) async fn connected(&self) -> Result<Connected, RedisError> {
        let index = self.0.next.fetch_add(1, Ordering::Relaxed) % LINKS;
        if let Some(connected) = self.0.ready(index) {
            return Ok(connected);
        }
        // A task of its own, so that a caller's deadline does not end the attempt again and again.
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.connect(index).await })
            .await
            .unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, "connecting was cut short"))))
    }

    /// Throws away the connections up to `generation`: the next call makes new ones.
    pub(super) fn reset(&self, generation: u64) {
        for slot in &self.0.slots {
            let mut ready = slot.ready.write().unwrap_or_else(PoisonError::into_inner);
            if ready.as_ref().is_some_and(|connected| connected.generation <= generation) {
                *ready = None;
            }
        }
    }

    /// The latest generation.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn ready(&self, index: usize) -> Option<Connected> {
        self.slots[index].ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect(&self, index: usize) -> Result<Connected, RedisError> {
        let slot = &self.slots[index];
        let Ok(_alone) = tokio::time::timeout(CONNECT, slot.connecting.lock()).await else {
            return Err(RedisError::from((ErrorKind::Io, "still connecting")));
        };
        if let Some(connected) = self.ready(index) {
            return Ok(connected);
        }
        // The caller bounds each answer by its own deadline.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let connected = Connected { connection, generation };
        *slot.ready.write().unwrap_or_else(PoisonError::into_inner) = Some(connected.clone());
        Ok(connected)
    }
}
