//! The broker seam: how events leave the relay ([`EventSink`]) and reach the worker ([`EventSource`]).
//!
//! Brokers carry [`Envelope`]s and know nothing of orders. Each backend is one folder; which one runs is
//! decided in [`connect_sink`] and [`connect_source`], the one `match` on `EVENT_SYSTEM`. What every backend must do is
//! written down as one conformance suite (`contract.rs`), which all of them pass on the real broker.

mod config;
mod connect;
#[cfg(test)]
mod contract;
mod metered;
pub mod rabbitmq;
pub mod redis_streams;
pub mod sqs;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;

pub use config::{BrokerConfig, EventSystem};
pub use connect::{connect_sink, connect_source};

use crate::domain::event::Envelope;

/// Where the relay puts events.
#[async_trait]
pub trait EventSink: Send + Sync + fmt::Debug {
    /// Which event system this is, for metrics and messages.
    fn system(&self) -> EventSystem;

    /// Sends a batch and says for each event, in the order given, what became of it.
    ///
    /// The answer has exactly as many entries as the batch. Events of one key are offered to the broker in the
    /// order given. Never fails as a whole: where the broker is out of reach, every entry is [`PublishOutcome::Retry`].
    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome>;

    /// [`EventSink::publish`] for events that the broker may know already and that consumers shall get again
    /// nevertheless: a repair, a replay, a redrive. They are different only to a broker that drops what it has seen.
    async fn republish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        self.publish(batch).await
    }

    /// Whether the broker would take events now.
    async fn check(&self) -> Result<(), BrokerError>;

    /// Gives back connections; what was confirmed stays confirmed.
    async fn close(&self);
}

/// What became of one published event.
#[derive(Debug)]
pub enum PublishOutcome {
    /// The broker has stored it durably.
    Confirmed,
    /// Not known to be stored: send it again.
    Retry(BrokerError),
    /// Refused for good: sending it again cannot help.
    Rejected(String),
}

/// Where the worker gets events from.
#[async_trait]
pub trait EventSource: Send + Sync + fmt::Debug {
    /// Which event system this is, for metrics and messages.
    fn system(&self) -> EventSystem;

    /// Waits up to `wait` for at least one event and takes up to `max` of those that are there.
    ///
    /// What is received is this consumer's until it is settled: it is kept from other consumers (heartbeat,
    /// visibility extension) as long as this source lives, and comes back to another one when it dies. An empty
    /// batch means that none came in time, or that the source is closed.
    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError>;

    /// Settles deliveries in one go. What cannot be settled comes again: consumers tolerate duplicates.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError>;

    /// How much waits for this kind of consumer, as far as the broker can tell.
    async fn backlog(&self) -> Result<Backlog, BrokerError>;

    /// Whether the broker would hand out events now.
    async fn check(&self) -> Result<(), BrokerError>;

    /// Wakes a blocked [`EventSource::receive`] at once, hands back what is held and not settled, and disconnects.
    async fn close(&self);
}

/// One event as a broker handed it out.
#[derive(Debug)]
pub struct Delivery {
    /// The event's body as it came; whether it can be read is the consumer's question.
    pub body: Bytes,
    /// Which attempt at this event this is, from 1, counted before any handler runs.
    pub attempt: u32,
    /// When the broker took the event in, where it tells.
    pub published_at: Option<OffsetDateTime>,
    /// The broker's own reference (entry id, receipt handle, delivery tag).
    pub receipt: String,
}

impl Delivery {
    /// Done with it: it must not come again.
    pub fn ack(self) -> Settlement {
        Settlement { receipt: self.receipt, outcome: Outcome::Ack }
    }

    /// Not now: it shall come again after about `after`, as the next attempt.
    pub fn retry(self, after: Duration) -> Settlement {
        let Self { body, attempt, receipt, .. } = self;
        Settlement { receipt, outcome: Outcome::Retry { after, attempt, body } }
    }
}

/// A delivery with its outcome; made by [`Delivery::ack`] and [`Delivery::retry`] only.
#[derive(Debug)]
pub struct Settlement {
    /// See [`Delivery::receipt`].
    pub(crate) receipt: String,
    /// What shall become of it.
    pub(crate) outcome: Outcome,
}

/// What shall become of a delivery.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Never again.
    Ack,
    /// Again, later. Carries the delivery's parts for brokers that must send it anew to delay it.
    Retry { after: Duration, attempt: u32, body: Bytes },
}

/// How much waits in a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events not yet settled, delivered or not.
    pub messages: u64,
    /// How long the oldest of them has been in the broker, where it tells.
    pub oldest_age: Option<Duration>,
}

/// The largest body of an event, in bytes: the smallest of the brokers' own limits (that of SQS), so that an event
/// which one of them took can be moved to any other.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Why an event can never be published, where it is too large.
fn too_large(event: &Envelope) -> Option<String> {
    let bytes = event.body.len();
    (bytes > MAX_EVENT_BYTES).then(|| format!("the event has {bytes} bytes, more than {MAX_EVENT_BYTES}"))
}

/// At start: a failure that may pass is logged and left to be tried again; one that needs an operator is an error.
fn passing(result: Result<(), BrokerError>) -> Result<(), BrokerError> {
    match result {
        Err(error @ BrokerError::Unavailable { .. }) => {
            tracing::warn!(error.message = %error, "the broker cannot be reached yet");
            Ok(())
        }
        done => done,
    }
}

/// A broker did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker cannot be reached or did not answer in time; it may be well in a moment.
    #[error("{} is unavailable: {message}", system.product())]
    Unavailable {
        /// Which event system.
        system: EventSystem,
        /// What the client library said.
        message: String,
    },
    /// The set-up is wrong: waiting does not help, an operator must.
    #[error("{} is not set up as needed: {message}", system.product())]
    Misconfigured {
        /// Which event system.
        system: EventSystem,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl BrokerError {
    /// A failure that may pass.
    pub fn unavailable(system: EventSystem, error: impl fmt::Display) -> Self {
        Self::Unavailable { system, message: error.to_string() }
    }

    /// A failure that needs an operator.
    pub fn misconfigured(system: EventSystem, message: impl Into<String>) -> Self {
        Self::Misconfigured { system, message: message.into() }
    }
}
