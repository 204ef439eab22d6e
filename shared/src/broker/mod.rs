//! Brokers: how the relay publishes events ([`EventSink`]) and the worker receives them ([`EventSource`]).
//!
//! Brokers carry [`Envelope`]s and do not know orders. Each backend is one folder; [`connect_sink`] and [`connect_source`]
//! choose one by `EVENT_SYSTEM`. The conformance suite (`contract.rs`) defines what every backend must do; all of them pass
//! it on the real broker.

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

use crate::domain::{event::Envelope, tenant::TenantId};

/// Where the relay publishes events.
#[async_trait]
pub trait EventSink: Send + Sync + fmt::Debug {
    /// Which event system this is, for metrics and messages.
    fn system(&self) -> EventSystem;

    /// Publishes a batch and returns the outcome of each event, in the order of the batch.
    ///
    /// The result has exactly as many entries as the batch. Events of one key are published in the order of the batch. Never
    /// fails as a whole: if the broker cannot be reached, every outcome is [`PublishOutcome::Retry`].
    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome>;

    /// [`EventSink::publish`] for events that the broker may know already and that consumers must receive again: a repair, a
    /// replay, a redrive. The difference matters only to a broker that drops duplicates.
    async fn republish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        self.publish(batch).await
    }

    /// How often another server has taken the place of the one that had confirmed events, which may lack the last of them. Only
    /// grows.
    fn takeovers(&self) -> u64 {
        0
    }

    /// Checks whether the broker takes events now.
    async fn check(&self) -> Result<(), BrokerError>;

    /// Closes the connections. Confirmed events stay confirmed.
    async fn close(&self);
}

/// The outcome of publishing one event.
#[derive(Debug)]
pub enum PublishOutcome {
    /// The broker has stored it durably.
    Confirmed,
    /// Not known to be stored: it must be published again.
    Retry(BrokerError),
    /// Rejected: publishing it again cannot help.
    Rejected(String),
}

/// Where the worker receives events.
#[async_trait]
pub trait EventSource: Send + Sync + fmt::Debug {
    /// Which event system this is, for metrics and messages.
    fn system(&self) -> EventSystem;

    /// Waits up to `wait` for at least one event, and returns up to `max` events.
    ///
    /// Until an event is settled, no other consumer receives it while this source lives (heartbeat, visibility extension).
    /// When this source dies, another consumer receives it. An empty batch means that no event came in time, or that the
    /// source is closed.
    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError>;

    /// Settles deliveries. A delivery that cannot be settled comes again: consumers tolerate duplicates.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError>;

    /// How many events wait for this kind of consumer, as far as the broker reports it.
    async fn backlog(&self) -> Result<Backlog, BrokerError>;

    /// Checks whether the broker hands out events now.
    async fn check(&self) -> Result<(), BrokerError>;

    /// Removes what the broker retains of a tenant's events although every consumer has had them, and returns how many these were.
    /// Queues retain none.
    async fn forget_tenant(&self, _tenant: TenantId) -> Result<usize, BrokerError> {
        Ok(0)
    }

    /// Wakes a blocked [`EventSource::receive`] at once, releases unsettled events, and disconnects.
    async fn close(&self);
}

/// One event as a broker handed it out.
#[derive(Debug)]
pub struct Delivery {
    /// The event's body, as received. It may be invalid.
    pub body: Bytes,
    /// Which attempt at this event this is, from 1, counted before any handler runs.
    pub attempt: u32,
    /// When the broker received the event, if it reports that.
    pub published_at: Option<OffsetDateTime>,
    /// The broker's own reference (entry id, receipt handle, delivery tag).
    pub receipt: String,
}

impl Delivery {
    /// Acknowledges the event: it must not come again.
    pub fn ack(self) -> Settlement {
        Settlement { receipt: self.receipt, outcome: SettlementKind::Ack }
    }

    /// Asks for the event again after about `after`, as the next attempt.
    pub fn retry(self, after: Duration) -> Settlement {
        let Self { body, attempt, receipt, .. } = self;
        Settlement { receipt, outcome: SettlementKind::Retry { after, attempt, body } }
    }
}

/// A delivery with its outcome; made by [`Delivery::ack`] and [`Delivery::retry`] only.
#[derive(Debug)]
pub struct Settlement {
    /// See [`Delivery::receipt`].
    pub(crate) receipt: String,
    /// What the broker must do with it.
    pub(crate) outcome: SettlementKind,
}

/// What the broker must do with a delivery.
#[derive(Debug)]
pub(crate) enum SettlementKind {
    /// Remove it.
    Ack,
    /// Deliver it again later. Has the parts of the delivery for brokers that must publish a copy to delay it.
    Retry { after: Duration, attempt: u32, body: Bytes },
}

/// How many events wait in a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events not yet settled, delivered or not.
    pub messages: u64,
    /// How long the oldest of them has been in the broker, if it reports that.
    pub oldest_age: Option<Duration>,
}

/// The largest body of an event, in bytes: the smallest of the brokers' own limits (that of SQS), so that an event
/// which one of them took can be moved to any other.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Why an event can never be published, if it is too large.
fn too_large(event: &Envelope) -> Option<String> {
    let bytes = event.body.len();
    (bytes > MAX_EVENT_BYTES).then(|| format!("the event has {bytes} bytes, more than {MAX_EVENT_BYTES}"))
}

/// At start: logs a temporary failure, which is tried again later; a failure that needs an operator is an error.
fn ignore_unavailable(result: Result<(), BrokerError>) -> Result<(), BrokerError> {
    match result {
        Err(error @ BrokerError::Unavailable { .. }) => {
            tracing::warn!(error.message = %error, "the broker cannot be reached yet");
            Ok(())
        }
        done => done,
    }
}

/// A call of the broker failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker cannot be reached or did not answer in time. This may be temporary.
    #[error("{} is unavailable: {message}", system.product())]
    Unavailable {
        /// Which event system.
        system: EventSystem,
        /// What the client library said.
        message: String,
    },
    /// The broker works, and holds as many events as it should. It takes more once consumers have handled some.
    #[error("{} takes no more events: {message}", system.product())]
    Full {
        /// Which event system.
        system: EventSystem,
        /// What is full.
        message: String,
    },
    /// The set-up is wrong: an operator must correct it.
    #[error("{} is not set up as needed: {message}", system.product())]
    Misconfigured {
        /// Which event system.
        system: EventSystem,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl BrokerError {
    /// A temporary failure.
    pub fn unavailable(system: EventSystem, error: impl fmt::Display) -> Self {
        Self::Unavailable { system, message: error.to_string() }
    }

    /// A failure that needs an operator.
    pub fn misconfigured(system: EventSystem, message: impl Into<String>) -> Self {
        Self::Misconfigured { system, message: message.into() }
    }
}
