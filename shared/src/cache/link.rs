//! The connection to Redis: one, shared by everyone, pipelining what is sent through it.
//!
//! One rather than several: what many tasks send at the same time then leaves in one system call, and comes back in
//! one, which costs both sides less than a second connection gains. Entries are small, so none holds up the others.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, aio::MultiplexedConnection};

/// How long connecting may take; it goes on in the background when its caller has given up.
const CONNECT: Duration = Duration::from_millis(500);

/// A connection that is made when first used and replaced when it breaks. The client library's own manager never
/// leaves a connection whose peer has silently gone, so this is done here.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    client: Client,
    ready: RwLock<Option<Connected>>,
    connecting: tokio::sync::Mutex<()>,
    generation: AtomicU64,
}

/// A connection, and the generation it belongs to.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) generation: u64,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        let (ready, connecting) = (RwLock::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { client, ready, connecting, generation: AtomicU64::new(0) }))
    }

    /// The connection.
    pub(super) async fn connected(&self) -> Result<Connected, RedisError> {
        if let Some(connected) = self.0.ready() {
            return Ok(connected);
        }
        // A task of its own, so that a caller's deadline does not end the attempt again and again.
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.connect().await })
            .await
            .unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, "connecting was cut short"))))
    }

    /// Throws away the connection, unless it is newer than `generation`: the next call makes a new one.
    pub(super) fn reset(&self, generation: u64) {
        let mut ready = self.0.ready.write().unwrap_or_else(PoisonError::into_inner);
        if ready.as_ref().is_some_and(|connected| connected.generation <= generation) {
            *ready = None;
        }
    }

    /// The latest generation.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn ready(&self) -> Option<Connected> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect(&self) -> Result<Connected, RedisError> {
        let Ok(_alone) = tokio::time::timeout(CONNECT, self.connecting.lock()).await else {
            return Err(RedisError::from((ErrorKind::Io, "still connecting")));
        };
        if let Some(connected) = self.ready() {
            return Ok(connected);
        }
        // The caller bounds each answer by its own deadline.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let connected = Connected { connection, generation };
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = Some(connected.clone());
        Ok(connected)
    }
}
