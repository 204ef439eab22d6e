//! Keeps a connection up: reconnects with backoff, declares the topology each time, ends when asked.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use lapin::{Channel, Connection, ConnectionProperties, Event, options::ConfirmSelectOptions, uri::AMQPUri};
use secrecy::ExposeSecret as _;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{RabbitMqOptions, SYSTEM, set_up_error, topology};
use crate::{
    broker::{BrokerError, backoff::Backoff, metered, passing},
    platform::config::parse_amqp,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds of the heartbeat, unless the URL says otherwise. A connection that is silent counts as dead here after twice
/// that, and at the broker after two to three times: only then are the messages that went into it delivered again.
const HEARTBEAT: u16 = 3;

/// One connection with its channels.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// In confirm mode, for publishing.
    pub(super) publishing: Channel,
    /// For consuming, so that a publisher's mistake costs no consumer its deliveries.
    pub(super) consuming: Channel,
    /// Tells the sessions of one process apart.
    pub(super) number: u64,
    broken: CancellationToken,
    lost: CancellationToken,
}

impl Session {
    /// Runs something on this connection, for no longer than `patience` and no longer than the connection lives: the
    /// client library does not answer everything that was under way when it lost a connection.
    pub(super) async fn run<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, BrokerError> {
        tokio::select! {
            biased;
            done = timeout(patience, work) => done.map_err(|_| {
                self.give_up();
                BrokerError::unavailable(SYSTEM, "the broker did not answer in time")
            }),
            () = self.lost.cancelled() => Err(BrokerError::unavailable(SYSTEM, "the connection was lost")),
        }
    }

    /// Has the supervisor replace this session.
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
enum State {
    Up(Arc<Session>),
    Down { for_operator: bool, message: String },
}

impl State {
    fn down(error: BrokerError) -> Self {
        match error {
            BrokerError::Unavailable { message, .. } => Self::Down { for_operator: false, message },
            BrokerError::Misconfigured { message, .. } => Self::Down { for_operator: true, message },
        }
    }
}

/// Owns the background task that keeps the connection.
#[derive(Debug)]
pub(super) struct Supervisor {
    state: watch::Receiver<State>,
    pub(super) closed: CancellationToken,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Supervisor {
    /// Connects once; where the broker cannot be reached, goes on trying in the background. `side` is for the metrics.
    pub(super) async fn start(options: RabbitMqOptions, side: &'static str) -> Result<Self, BrokerError> {
        let mut uri = parse_amqp(options.url.expose_secret()).map_err(|problem| {
            BrokerError::misconfigured(SYSTEM, format!("the address cannot be used: {problem}"))
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let mut worker = Worker { uri, options, side, sessions: 0, closed: CancellationToken::new() };
        let first = match worker.connect().await {
            Ok(session) => State::Up(Arc::new(session)),
            Err(error) => {
                let state = State::down(error);
                passing(Err(state_error(&state)))?;
                state
            }
        };
        let (sender, state) = watch::channel(first);
        let closed = worker.closed.clone();
        let task = tokio::spawn(worker.run(sender));
        Ok(Self { state, closed, task: std::sync::Mutex::new(Some(task)) })
    }

    /// The session there is, or the next one, waited for up to `wait`; `None` when closed.
    pub(super) async fn session(&self, wait: Duration) -> Result<Option<Arc<Session>>, BrokerError> {
        let mut state = self.state.clone();
        let up = timeout(wait, state.wait_for(|state| matches!(state, State::Up(_))));
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
            State::Up(session) => Ok(Some(session)),
            down @ State::Down { .. } => Err(state_error(&down)),
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

fn state_error(state: &State) -> BrokerError {
    match state {
        State::Down { for_operator: true, message } => BrokerError::misconfigured(SYSTEM, message.clone()),
        State::Down { message, .. } => BrokerError::unavailable(SYSTEM, message),
        State::Up(_) => BrokerError::unavailable(SYSTEM, "the connection has just been lost"),
    }
}

struct Worker {
    uri: AMQPUri,
    options: RabbitMqOptions,
    side: &'static str,
    sessions: u64,
    closed: CancellationToken,
}

impl Worker {
    async fn run(mut self, state: watch::Sender<State>) {
        let mut backoff = Backoff::default();
        loop {
            let current = state.borrow().clone();
            if let State::Up(session) = current {
                backoff.reset();
                let lost = self.watch(&session).await;
                session.lost.cancel();
                let _down = state.send_replace(State::Down { for_operator: false, message: lost });
                // Closing also has the broker requeue at once what this session holds. A silent one takes its time, which
                // no new connection has to wait for.
                let closing = tokio::spawn(async move {
                    timeout(CLOSE_TIMEOUT, session.connection.close(200, "done".into())).await
                });
                if self.closed.is_cancelled() {
                    let _closed = closing.await;
                }
            }
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return,
                () = tokio::time::sleep(backoff.next_pause()) => {}
            }
            let closed = self.closed.clone();
            let attempt = tokio::select! {
                biased;
                () = closed.cancelled() => return,
                attempt = self.connect() => attempt,
            };
            let next = match attempt {
                Ok(session) => {
                    metered::reconnected(SYSTEM, self.side);
                    State::Up(Arc::new(session))
                }
                Err(error) => {
                    tracing::warn!(error.message = %error, "RabbitMQ: connecting failed");
                    State::down(error)
                }
            };
            let _former = state.send_replace(next);
        }
    }

    /// Waits until the session is of no more use, and says why.
    async fn watch(&self, session: &Session) -> String {
        let mut events = std::pin::pin!(session.connection.events_listener());
        let mut look = tokio::time::interval(Duration::from_secs(1));
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
                // Errors that came before anybody listened.
                _ = look.tick() => {
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
