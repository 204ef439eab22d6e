//! The one connection of a handle: opened when needed, checked while it is open, replaced when it is unusable.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use redis::{RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::connector::{Connector, confirm_primary, timed_out};

/// Between two checks of an open connection.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A server that takes longer to answer a check counts as gone.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between the beginnings of two attempts to connect, so that callers cannot flood a server that refuses connections.
const CONNECT_EVERY: Duration = Duration::from_millis(100);

/// Holds the connection.
pub(super) struct Link {
    pub(super) connector: Connector,
    reconnected: Box<dyn Fn() + Send + Sync>,
    was_connected: AtomicBool,
    state: Mutex<LinkState>,
}

enum LinkState {
    /// The next connection is opened no earlier than `not_before`.
    Closed {
        not_before: Option<Instant>,
    },
    /// All callers wait for the same attempt.
    Connecting(Shared<BoxFuture<'static, RedisResult<Arc<LiveConnection>>>>),
    Open(Arc<LiveConnection>),
}

/// An open connection.
pub(super) struct LiveConnection {
    pub(super) connection: MultiplexedConnection,
    /// Whether the server can wait for the disk, once that is known.
    pub(super) waits_for_disk: OnceLock<bool>,
    began: Instant,
    closed: CancellationToken,
    check_requested: Notify,
}

impl LiveConnection {
    /// Waits for an answer while the connection is open: a silent peer never sends one.
    pub(super) async fn while_open<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.closed.cancelled() => Err(closed()),
        }
    }

    /// Has the connection checked at once.
    pub(super) fn check_now(&self) {
        self.check_requested.notify_one();
    }
}

impl Link {
    pub(super) fn new(connector: Connector, reconnected: Box<dyn Fn() + Send + Sync>) -> Self {
        let state = Mutex::new(LinkState::Closed { not_before: None });
        Self { connector, reconnected, was_connected: AtomicBool::new(false), state }
    }

    /// The current connection, or a new one, and whether it is new.
    pub(super) async fn open(self: &Arc<Self>) -> RedisResult<(Arc<LiveConnection>, bool)> {
        let connecting = {
            let mut state = self.lock();
            match &*state {
                LinkState::Open(open) => return Ok((Arc::clone(open), false)),
                LinkState::Connecting(connecting) => connecting.clone(),
                LinkState::Closed { not_before } => {
                    // A task of its own, so that a caller's deadline does not end the attempt again and again.
                    let attempt = tokio::spawn(Arc::clone(self).connect(*not_before));
                    let attempt = async move { attempt.await.unwrap_or_else(|_| Err(closed())) };
                    let connecting = attempt.boxed().shared();
                    *state = LinkState::Connecting(connecting.clone());
                    connecting
                }
            }
        };
        connecting.await.map(|open| (open, true))
    }

    /// Closes this connection, unless a newer one has taken its place.
    pub(super) fn close(&self, open: &Arc<LiveConnection>, why: &RedisError) {
        open.closed.cancel();
        let mut state = self.lock();
        if matches!(&*state, LinkState::Open(current) if Arc::ptr_eq(current, open)) {
            *state = LinkState::Closed { not_before: Some(open.began + CONNECT_EVERY) };
            drop(state);
            tracing::warn!(error.message = %why, "a connection to Redis is unusable: it is replaced");
        }
    }

    /// Closes the current connection, if there is one.
    pub(super) fn disconnect(&self) {
        let mut state = self.lock();
        if let LinkState::Open(open) = &*state {
            open.closed.cancel();
            *state = LinkState::Closed { not_before: None };
        }
    }

    async fn connect(self: Arc<Self>, not_before: Option<Instant>) -> RedisResult<Arc<LiveConnection>> {
        // If this task is cut short, by the end of its runtime, the next caller tries again.
        let mut attempt = Attempt { link: &self, next: LinkState::Closed { not_before: None } };
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        let began = Instant::now();
        attempt.next = LinkState::Closed { not_before: Some(began + CONNECT_EVERY) };
        let connection = self.connector.connect().await?.connection;
        let open = Arc::new(LiveConnection {
            connection,
            waits_for_disk: OnceLock::new(),
            began,
            closed: CancellationToken::new(),
            check_requested: Notify::new(),
        });
        tokio::spawn(check_until_closed(Arc::downgrade(&self), Arc::clone(&open)));
        attempt.next = LinkState::Open(Arc::clone(&open));
        drop(attempt);
        if self.was_connected.swap(true, Ordering::Relaxed) {
            (self.reconnected)();
        }
        Ok(open)
    }

    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// An attempt to connect. When it ends, for whatever reason, the link has the state `next`.
struct Attempt<'a> {
    link: &'a Link,
    next: LinkState,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let next = std::mem::replace(&mut self.next, LinkState::Closed { not_before: None });
        *self.link.lock() = next;
    }
}

/// Checks a connection until it is closed.
async fn check_until_closed(link: Weak<Link>, open: Arc<LiveConnection>) {
    let mut connection = open.connection.clone();
    loop {
        tokio::select! {
            () = open.closed.cancelled() => return,
            () = open.check_requested.notified() => {}
            () = sleep(CHECK_EVERY) => {}
        }
        let check = timeout(CHECK_TIMEOUT, open.while_open(confirm_primary(&mut connection)));
        if let Err(error) = check.await.unwrap_or_else(|_| Err(timed_out())) {
            if let Some(link) = link.upgrade() {
                link.close(&open, &error);
            }
            return;
        }
    }
}

/// The error of a caller whose connection was closed while it waited.
fn closed() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()
}
