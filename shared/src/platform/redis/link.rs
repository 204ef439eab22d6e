//! The one connection of a handle: made when needed, checked while it is open, replaced when it is of no more use.

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
/// Between the beginnings of two attempts to connect, so that callers cannot storm a server that turns them away.
const CONNECT_EVERY: Duration = Duration::from_millis(100);

/// Holds the connection.
pub(super) struct Link {
    pub(super) connector: Connector,
    reconnected: Box<dyn Fn() + Send + Sync>,
    had_one: AtomicBool,
    state: Mutex<State>,
}

enum State {
    /// The next connection is made no earlier than this.
    Closed {
        not_before: Option<Instant>,
    },
    /// All who ask meanwhile wait for the same attempt.
    Connecting(Shared<BoxFuture<'static, RedisResult<Arc<Open>>>>),
    Open(Arc<Open>),
}

/// An open connection.
pub(super) struct Open {
    pub(super) connection: MultiplexedConnection,
    /// What the server can do, once somebody has asked.
    pub(super) waits_for_disk: OnceLock<bool>,
    began: Instant,
    closed: CancellationToken,
    doubted: Notify,
}

impl Open {
    /// Waits for an answer, but no longer than the connection is open: one that comes from a silent peer never comes.
    pub(super) async fn bound<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.closed.cancelled() => Err(closed()),
        }
    }

    /// Has the connection checked at once.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }
}

impl Link {
    pub(super) fn new(connector: Connector, reconnected: Box<dyn Fn() + Send + Sync>) -> Self {
        let state = Mutex::new(State::Closed { not_before: None });
        Self { connector, reconnected, had_one: AtomicBool::new(false), state }
    }

    /// The connection there is, or a new one, and whether it is new.
    pub(super) async fn open(self: &Arc<Self>) -> RedisResult<(Arc<Open>, bool)> {
        let connecting = {
            let mut state = self.lock();
            match &*state {
                State::Open(open) => return Ok((Arc::clone(open), false)),
                State::Connecting(connecting) => connecting.clone(),
                State::Closed { not_before } => {
                    // A task of its own, so that a caller's deadline does not end the attempt again and again.
                    let attempt = tokio::spawn(Arc::clone(self).connect(*not_before));
                    let attempt = async move { attempt.await.unwrap_or_else(|_| Err(closed())) };
                    let connecting = attempt.boxed().shared();
                    *state = State::Connecting(connecting.clone());
                    connecting
                }
            }
        };
        connecting.await.map(|open| (open, true))
    }

    /// Closes this connection, unless a newer one has taken its place.
    pub(super) fn close(&self, open: &Arc<Open>, why: &RedisError) {
        open.closed.cancel();
        let mut state = self.lock();
        if matches!(&*state, State::Open(current) if Arc::ptr_eq(current, open)) {
            *state = State::Closed { not_before: Some(open.began + CONNECT_EVERY) };
            drop(state);
            tracing::warn!(error.message = %why, "a connection to Redis is of no more use: it is replaced");
        }
    }

    /// Closes whatever connection there is.
    pub(super) fn disconnect(&self) {
        let mut state = self.lock();
        if let State::Open(open) = &*state {
            open.closed.cancel();
            *state = State::Closed { not_before: None };
        }
    }

    async fn connect(self: Arc<Self>, not_before: Option<Instant>) -> RedisResult<Arc<Open>> {
        // If this task is cut short, by the end of its runtime, the next caller tries again.
        let mut attempt = Attempt { link: &self, next: State::Closed { not_before: None } };
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        let began = Instant::now();
        attempt.next = State::Closed { not_before: Some(began + CONNECT_EVERY) };
        let connection = self.connector.connect().await?.connection;
        let open = Arc::new(Open {
            connection,
            waits_for_disk: OnceLock::new(),
            began,
            closed: CancellationToken::new(),
            doubted: Notify::new(),
        });
        tokio::spawn(watch(Arc::downgrade(&self), Arc::clone(&open)));
        attempt.next = State::Open(Arc::clone(&open));
        drop(attempt);
        if self.had_one.swap(true, Ordering::Relaxed) {
            (self.reconnected)();
        }
        Ok(open)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// An attempt to connect. However it ends, the link is in the state that it leaves.
struct Attempt<'a> {
    link: &'a Link,
    next: State,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let next = std::mem::replace(&mut self.next, State::Closed { not_before: None });
        *self.link.lock() = next;
    }
}

/// Checks a connection until it is closed.
async fn watch(link: Weak<Link>, open: Arc<Open>) {
    let mut connection = open.connection.clone();
    loop {
        tokio::select! {
            () = open.closed.cancelled() => return,
            () = open.doubted.notified() => {}
            () = sleep(CHECK_EVERY) => {}
        }
        let check = timeout(CHECK_TIMEOUT, open.bound(confirm_primary(&mut connection)));
        if let Err(error) = check.await.unwrap_or_else(|_| Err(timed_out())) {
            if let Some(link) = link.upgrade() {
                link.close(&open, &error);
            }
            return;
        }
    }
}

/// What a caller sees whose connection was closed while it waited.
fn closed() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()
}
