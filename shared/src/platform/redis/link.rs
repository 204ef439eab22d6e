//! The one connection of a handle: opened when needed, checked while it is open, replaced when it is unusable.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use redis::{
    Client, ConnectionAddr, ErrorKind, RedisError, RedisResult, ServerErrorKind, aio::MultiplexedConnection,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connector::{Connector, ServerKind, connect_to, greet},
    failure::timed_out,
    lease::Lease,
};

/// Between two checks of an open connection.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A server that takes longer to answer a check counts as gone.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between the beginnings of two attempts to connect, so that callers cannot flood a server that refuses connections.
const CONNECT_EVERY: Duration = Duration::from_millis(100);
/// Between two questions to the sentinels. A primary that was replaced while it is alive is left this fast.
const CONFIRM_EVERY: Duration = Duration::from_millis(500);

/// What to do each time a lost connection has been replaced.
pub(super) type ReconnectHook = Arc<dyn Fn() + Send + Sync>;

/// A handle that has connected within this time of its beginning was not in use before.
const FIRST_CONNECT: Duration = Duration::from_secs(2);

/// Holds the connection.
pub(super) struct Link {
    connector: Connector,
    reconnected: ReconnectHook,
    was_connected: AtomicBool,
    state: Mutex<LinkState>,
    last_era: Mutex<Option<Era>>,
    handle_began: Instant,
}

/// The time from a server's start or promotion to the next. What it holds from an earlier one may be older than what was
/// confirmed since: replication is asynchronous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Era {
    /// The first digits of the server's `master_replid`.
    pub id: String,
    /// When this process met it first. It began no later.
    pub met: Instant,
    /// Whether the handle had been in use before, so that the server was promoted or started meanwhile.
    pub met_in_use: bool,
}

/// A connection for one caller, on which a command can block.
pub struct DedicatedConnection {
    /// What commands are sent on. It has no deadline: the caller bounds each command.
    pub connection: MultiplexedConnection,
    /// The id for `CLIENT UNBLOCK`, if the server reports it.
    pub client_id: Option<u64>,
    /// Ends with the shared connection to the same server.
    closed: CancellationToken,
}

impl DedicatedConnection {
    /// Whether the server has been left, as after a failover.
    pub fn is_abandoned(&self) -> bool {
        self.closed.is_cancelled()
    }
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
    pub(super) kind: ServerKind,
    /// Unknown if the server is not replicated, or the user is not allowed to ask.
    pub(super) era: Option<Era>,
    /// How long it is certain that the sentinels name this server. Used with sentinels only.
    pub(super) lease: Lease,
    client: Client,
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

    fn leads_to(&self, host: &str, port: u16) -> bool {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(own_host, own_port)
            | ConnectionAddr::TcpTls { host: own_host, port: own_port, .. } => {
                own_host == host && *own_port == port
            }
            _ => false,
        }
    }

    /// Has the connection checked at once.
    pub(super) fn check_now(&self) {
        self.check_requested.notify_one();
    }
}

impl Link {
    /// `handle_began` is when the handle was made, which a link to a node of a cluster can be younger than.
    pub(super) fn new(connector: Connector, reconnected: ReconnectHook, handle_began: Instant) -> Self {
        let state = Mutex::new(LinkState::Closed { not_before: None });
        let was_connected = AtomicBool::new(false);
        Self { connector, reconnected, was_connected, state, last_era: Mutex::default(), handle_began }
    }

    /// Opens a connection for one caller, to the server of the shared one.
    pub(super) async fn connect_dedicated(self: &Arc<Self>) -> RedisResult<DedicatedConnection> {
        let (open, _) = self.open().await?;
        let connecting = connect_to(&open.client, open.kind);
        match open.while_open(connecting).await {
            Ok((connection, greeting)) => {
                let closed = open.closed.clone();
                Ok(DedicatedConnection { connection, client_id: greeting.client_id, closed })
            }
            Err(error) => {
                // The server may be gone, which the shared connection would notice later.
                open.check_now();
                Err(error)
            }
        }
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
        let new = self.connector.connect().await?;
        let lease = Lease::new();
        if let Some(asked) = new.confirmed {
            lease.renew(asked);
        }
        let open = Arc::new(LiveConnection {
            connection: new.connection,
            kind: self.connector.kind(),
            era: self.meet_era(new.greeting.era),
            lease,
            client: new.client,
            waits_for_disk: OnceLock::new(),
            began,
            closed: CancellationToken::new(),
            check_requested: Notify::new(),
        });
        tokio::spawn(check_until_closed(Arc::downgrade(&self), Arc::clone(&open)));
        if matches!(self.connector, Connector::Sentinels(_)) {
            tokio::spawn(confirm_until_closed(Arc::downgrade(&self), Arc::clone(&open)));
        }
        attempt.next = LinkState::Open(Arc::clone(&open));
        drop(attempt);
        if self.was_connected.swap(true, Ordering::Relaxed) {
            (self.reconnected)();
        }
        Ok(open)
    }

    /// The era of this id, which a reconnect can find again.
    fn meet_era(&self, id: Option<String>) -> Option<Era> {
        let id = id?;
        let mut last = self.last_era.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|last| last.id != id) {
            let met_in_use = self.handle_began.elapsed() > FIRST_CONNECT;
            *last = Some(Era { id, met: Instant::now(), met_in_use });
        }
        last.clone()
    }

    /// The id of the era of the server that it was connected to last, if that is known.
    pub(super) fn last_era(&self) -> Option<String> {
        let last = self.last_era.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|era| era.id.clone())
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
        let check = timeout(CHECK_TIMEOUT, open.while_open(greet(&mut connection, open.kind)));
        let error = match check.await.unwrap_or_else(|_| Err(timed_out())) {
            Ok(greeting) if greeting.era.as_ref() == open.era.as_ref().map(|era| &era.id) => continue,
            Ok(_) => replaced("the server was promoted or restarted"),
            Err(error) => error,
        };
        if let Some(link) = link.upgrade() {
            link.close(&open, &error);
        }
        return;
    }
}

/// Asks the sentinels whether a connection leads to the primary, until it is closed.
async fn confirm_until_closed(link: Weak<Link>, open: Arc<LiveConnection>) {
    let mut held = true;
    loop {
        tokio::select! {
            () = open.closed.cancelled() => return,
            () = sleep(CONFIRM_EVERY) => {}
        }
        let Some(link) = link.upgrade() else { return };
        let Connector::Sentinels(sentinels) = &link.connector else { return };
        match sentinels.find_primary().await {
            Ok(survey) if !open.leads_to(&survey.primary.host, survey.primary.port) => {
                open.lease.end();
                link.close(&open, &replaced("the sentinels name another primary"));
                return;
            }
            Ok(survey) => survey.confirmed.into_iter().for_each(|asked| open.lease.renew(asked)),
            Err(error) => tracing::debug!(error.message = %error, "no sentinel answers"),
        }
        let holds = open.lease.holds();
        if held && !holds {
            tracing::warn!(
                "Redis: the sentinels do not confirm the primary: cached orders are not used until more than half of them do"
            );
        } else if holds && !held {
            tracing::info!("Redis: the sentinels confirm the primary again");
        }
        held = holds;
    }
}

/// The error of a connection whose server is not the primary any more.
fn replaced(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Server(ServerErrorKind::ReadOnly), why))
}

/// The error of a caller whose connection was closed while it waited.
fn closed() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()
}
