//! Keeps a connection open: reconnects with backoff, declares the topology each time, and ends when the supervisor is closed.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use lapin::{Channel, Connection, ConnectionProperties, Event, options::ConfirmSelectOptions, uri::AMQPUri};
use secrecy::ExposeSecret as _;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{RPC_TIMEOUT, RabbitMqOptions, SYSTEM, broker_error, set_up_error, topology};
use crate::{
    broker::{BrokerError, ignore_unavailable, metered},
    platform::{backoff::Backoff, config::parse_amqp},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to connect.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The interval of heartbeats in seconds, unless the URL sets another. A silent connection counts as dead here after two
/// intervals, and at the broker after two to three: only then are the messages on it delivered again.
const HEARTBEAT: u16 = 3;

/// One connection with its channels.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// In confirm mode, for publishing.
    pub(super) publishing: Channel,
    /// For consuming, so that a publisher's mistake costs no consumer its deliveries.
    pub(super) consuming: Channel,
    /// Unique among the sessions of one supervisor.
    pub(super) number: u64,
    broken: CancellationToken,
    lost: CancellationToken,
}

impl Session {
    /// Does some work on this connection, for at most `limit` and only while the connection is open: the client library
    /// does not complete every call that was in progress when it lost a connection.
    pub(super) async fn run_limited<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, BrokerError> {
        tokio::select! {
            biased;
            done = timeout(limit, work) => done.map_err(|_| {
                self.give_up();
                BrokerError::unavailable(SYSTEM, "the broker did not answer in time")
            }),
            () = self.lost.cancelled() => Err(BrokerError::unavailable(SYSTEM, "the connection was lost")),
        }
    }

    /// Makes the supervisor replace this session.
    pub(super) fn give_up(&self) {
        self.broken.cancel();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("number", &self.number).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
enum ConnectionState {
    Up(Arc<Session>),
    Down { needs_operator: bool, message: String },
}

impl ConnectionState {
    fn down(error: BrokerError) -> Self {
        match error {
            BrokerError::Unavailable { message, .. } | BrokerError::Full { message, .. } => {
                Self::Down { needs_operator: false, message }
            }
            BrokerError::Misconfigured { message, .. } => Self::Down { needs_operator: true, message },
        }
    }
}

/// Owns the background task that keeps the connection.
#[derive(Debug)]
pub(super) struct Supervisor {
    state: watch::Receiver<ConnectionState>,
    pub(super) closed: CancellationToken,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Supervisor {
    /// Connects once; if the broker cannot be reached, continues to try in the background. `side` is a metric label.
    pub(super) async fn start(options: RabbitMqOptions, side: &'static str) -> Result<Self, BrokerError> {
        let mut uri = parse_amqp(options.url.expose_secret()).map_err(|problem| {
            BrokerError::misconfigured(SYSTEM, format!("the address cannot be used: {problem}"))
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let mut task = ConnectionTask { uri, options, side, sessions: 0, closed: CancellationToken::new() };
        let first = match task.connect().await {
            Ok(session) => ConnectionState::Up(Arc::new(session)),
            Err(error) => {
                let state = ConnectionState::down(error);
                ignore_unavailable(Err(state_error(&state)))?;
                state
            }
        };
        let (sender, state) = watch::channel(first);
        let closed = task.closed.clone();
        let task = tokio::spawn(task.keep_connected(sender));
        Ok(Self { state, closed, task: std::sync::Mutex::new(Some(task)) })
    }

    /// The current session, or the next one if it comes within `wait`. `None` if the supervisor is closed.
    pub(super) async fn session(&self, wait: Duration) -> Result<Option<Arc<Session>>, BrokerError> {
        let mut state = self.state.clone();
        let up = timeout(wait, state.wait_for(|state| matches!(state, ConnectionState::Up(_))));
        let found = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Ok(None),
            up = up => match up {
                Ok(Ok(up)) => Some(up.clone()),
                Ok(Err(_)) => return Ok(None),
                Err(_) => None,
            },
        };
        match found.unwrap_or_else(|| self.state.borrow().clone()) {
            ConnectionState::Up(session) => Ok(Some(session)),
            down @ ConnectionState::Down { .. } => Err(state_error(&down)),
        }
    }

    /// Ends the task and the connection.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        let task = self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ended = timeout(CLOSE_TIMEOUT * 2, task).await;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

fn state_error(state: &ConnectionState) -> BrokerError {
    match state {
        ConnectionState::Down { needs_operator: true, message } => {
            BrokerError::misconfigured(SYSTEM, message.clone())
        }
        ConnectionState::Down { message, .. } => BrokerError::unavailable(SYSTEM, message),
        ConnectionState::Up(_) => BrokerError::unavailable(SYSTEM, "the connection has just been lost"),
    }
}

/// Whether the broker answers and takes messages.
pub(super) async fn check_connection(supervisor: &Supervisor) -> Result<(), BrokerError> {
    let Some(session) = supervisor.session(Duration::ZERO).await? else {
        return Err(BrokerError::unavailable(SYSTEM, "closed"));
    };
    if session.connection.status().blocked() {
        return Err(BrokerError::unavailable(
            SYSTEM,
            "the broker is short of memory or disk and takes no messages",
        ));
    }
    let probe = async {
        let channel = session.connection.create_channel().await?;
        channel.close(200, "done".into()).await
    };
    let answer = session.run_limited(RPC_TIMEOUT, probe).await?;
    answer.map_err(|error| broker_error(&error)).inspect_err(|_| session.give_up())
}

struct ConnectionTask {
    uri: AMQPUri,
    options: RabbitMqOptions,
    side: &'static str,
    sessions: u64,
    closed: CancellationToken,
}

impl ConnectionTask {
    async fn keep_connected(mut self, state: watch::Sender<ConnectionState>) {
        let mut attempts = 0_u32;
        loop {
            let current = state.borrow().clone();
            if let ConnectionState::Up(session) = current {
                attempts = 0;
                let lost = self.wait_until_unusable(&session).await;
                session.lost.cancel();
                let _down =
                    state.send_replace(ConnectionState::Down { needs_operator: false, message: lost });
                // When it closes, the broker requeues at once what this session holds. Closing a silent connection takes
                // long, and a new connection need not wait for it.
                let closing = tokio::spawn(async move {
                    timeout(CLOSE_TIMEOUT, session.connection.close(200, "done".into())).await
                });
                if self.closed.is_cancelled() {
                    let _closed = closing.await;
                }
            }
            attempts = attempts.saturating_add(1);
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return,
                () = tokio::time::sleep(RECONNECT.delay(attempts)) => {}
            }
            let closed = self.closed.clone();
            let attempt = tokio::select! {
                biased;
                () = closed.cancelled() => return,
                attempt = self.connect() => attempt,
            };
            let next = match attempt {
                Ok(session) => {
                    metered::record_reconnect(SYSTEM, self.side);
                    ConnectionState::Up(Arc::new(session))
                }
                Err(error) => {
                    tracing::warn!(error.message = %error, "RabbitMQ: connecting failed");
                    ConnectionState::down(error)
                }
            };
            let _former = state.send_replace(next);
        }
    }

    /// Waits until the session cannot be used any more, and returns why.
    async fn wait_until_unusable(&self, session: &Session) -> String {
        let mut events = std::pin::pin!(session.connection.events_listener());
        let mut status_check = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = self.closed.cancelled() => return "closed".to_owned(),
                () = session.broken.cancelled() => return "the connection was given up".to_owned(),
                event = events.next() => match event {
                    Some(Event::Error(error)) => return error.to_string(),
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(reason, "RabbitMQ takes no messages for now");
                    }
                    Some(_) => {}
                    None => return "the connection has ended".to_owned(),
                },
                // Finds errors that came before the listener was registered.
                _ = status_check.tick() => {
                    let channels = [&session.publishing, &session.consuming];
                    if !session.connection.status().connected()
                        || channels.iter().any(|channel| !channel.status().connected())
                    {
                        return "the connection was lost".to_owned();
                    }
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Session, BrokerError> {
        self.sessions += 1;
        let number = self.sessions;
        let name = format!("{} ({})", env!("CARGO_PKG_NAME"), self.side);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let opening = async {
            let connection = Connection::connect_uri(self.uri.clone(), properties).await?;
            let publishing = connection.create_channel().await?;
            topology::declare(&publishing, &self.options).await?;
            publishing.confirm_select(ConfirmSelectOptions::default()).await?;
            let consuming = connection.create_channel().await?;
            let (broken, lost) = (CancellationToken::new(), CancellationToken::new());
            Ok(Session { connection, publishing, consuming, number, broken, lost })
        };
        match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(opened) => opened.map_err(|error: lapin::Error| set_up_error(&error)),
            Err(_) => Err(BrokerError::unavailable(SYSTEM, "connecting took too long")),
        }
    }
}
