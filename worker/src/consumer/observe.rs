//! What the consumer says of its work: metrics, and one canonical line for each event.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, gauge, histogram};
use shared::{
    broker::{Backlog, BrokerError, Delivery, EventSource, EventSystem},
    domain::event::Event,
    platform::service::{GAUGE_TIMEOUT, UNKNOWN},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::errors::chain;

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Handled,
    Retried,
    DeadLettered,
    HandedBack,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Retried => "retried",
            Self::DeadLettered => "dead_lettered",
            Self::HandedBack => "handed_back",
        }
    }
}

/// An event at its end.
pub(super) struct Finished<'a> {
    pub(super) system: EventSystem,
    pub(super) event: Option<&'a Event>,
    pub(super) attempt: u32,
    pub(super) outcome: Outcome,
    /// Which part failed, and why.
    pub(super) failure: Option<(&'static str, &'a str)>,
    pub(super) ended: Ended,
}

/// When a batch, or an event that was set aside, had its outcome: looked up once for all of them.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    /// How long after it was received.
    pub(super) took: Duration,
    pub(super) at: OffsetDateTime,
}

/// Where events of a batch are counted: looked up once for all of them.
pub(super) struct Meters {
    handled: Counter,
    lag: Histogram,
}

impl Meters {
    pub(super) fn of(system: EventSystem) -> Self {
        let lag = histogram!("worker_event_lag_seconds", "broker" => system.as_str());
        Self { handled: ended(system, Outcome::Handled), lag }
    }
}

fn ended(system: EventSystem, outcome: Outcome) -> Counter {
    counter!("worker_events_total", "broker" => system.as_str(), "outcome" => outcome.as_str())
}

impl Finished<'_> {
    /// Counts it and writes its line.
    pub(super) fn tell(&self, meters: &Meters) {
        let broker = self.system.as_str();
        let outcome = self.outcome.as_str();
        let lag = self.event.map(|event| Duration::try_from(self.ended.at - event.time).unwrap_or_default());
        if self.outcome == Outcome::Handled {
            meters.handled.increment(1);
            if let Some(lag) = lag {
                meters.lag.record(lag);
            }
        } else {
            ended(self.system, self.outcome).increment(1);
        }
        let (source, reason) = self.failure.unzip();
        // Why a body cannot be read may quote from it, which belongs into the dead letter only.
        let reason = reason.filter(|_| self.event.is_some());
        let mut id = Uuid::encode_buffer();
        tracing::info!(
            event.id = self.event.map(|event| &*event.id.hyphenated().encode_lower(&mut id)),
            event.r#type = self.event.map(|event| event.event_type.as_str()),
            order.id = self.event.map(|event| event.data.order_id.get()),
            version = self.event.map(|event| event.data.version),
            attempt = self.attempt,
            outcome,
            failed.source = source,
            failed.reason = reason,
            duration_ms = millis(self.ended.took),
            lag_ms = lag.map(millis),
            broker,
            traceparent = self.event.and_then(|event| event.traceparent.as_deref()),
            "event"
        );
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A batch came in.
pub(super) fn received(system: EventSystem, batch: &[Delivery]) {
    let broker = system.as_str();
    let redelivered = batch.iter().filter(|delivery| delivery.attempt > 1).count();
    counter!("worker_events_received_total", "broker" => broker).increment(batch.len() as u64);
    counter!("worker_events_redelivered_total", "broker" => broker).increment(redelivered as u64);
    #[expect(clippy::cast_precision_loss, reason = "batches are far smaller than 2^52")]
    histogram!("worker_batch_events", "broker" => broker).record(batch.len() as f64);
}

/// A handler was called once with a batch.
pub(super) fn handler_called(handler: &'static str, system: EventSystem, took: Duration) {
    histogram!("worker_handler_duration_seconds", "handler" => handler, "broker" => system.as_str())
        .record(took);
}

/// An event is in the table.
pub(super) fn dead_lettered(system: EventSystem, source: &'static str) {
    counter!("worker_dead_letters_total", "broker" => system.as_str(), "source" => source).increment(1);
}

/// A batch is held, for the `tries`th time in vain.
pub(super) fn batch_is_held(part: &'static str, error: &str, tries: u32) {
    // Once, and then ever more rarely: an outage may be long.
    if tries.is_power_of_two() {
        tracing::warn!(part, error, tries, "holding a batch until a dependency is available again");
    }
}

/// A batch that was held went through.
pub(super) fn batch_went_through(part: &'static str, tries: u32) {
    if tries > 0 {
        tracing::info!(part, tries, "a held batch went through");
    }
}

/// Nothing could be received, for the `failures`th time in a row.
pub(super) fn source_failed(system: EventSystem, error: &BrokerError, failures: u32) {
    counter!("worker_source_failures_total", "broker" => system.as_str()).increment(1);
    if failures.is_power_of_two() {
        tracing::warn!(broker = %system, error = chain(error), failures, "cannot receive events");
    }
}

/// Settlements were lost.
pub(super) fn settle_failed(system: EventSystem, error: &BrokerError) {
    counter!("worker_settle_failures_total", "broker" => system.as_str()).increment(1);
    tracing::warn!(broker = %system, error = chain(error), "could not settle events; they will come again");
}

/// Reads what waits in the broker into gauges; without an answer, or before the broker is connected, they are
/// [`UNKNOWN`].
pub async fn set_backlog_gauges(system: EventSystem, source: Option<&dyn EventSource>) {
    let backlog = match source {
        Some(source) => tokio::time::timeout(GAUGE_TIMEOUT, source.backlog()).await.ok().and_then(Result::ok),
        None => None,
    };
    let broker = system.as_str();
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    let messages = backlog.map_or(UNKNOWN, |backlog| backlog.messages as f64);
    gauge!("worker_backlog_events", "broker" => broker).set(messages);
    gauge!("worker_backlog_oldest_seconds", "broker" => broker).set(oldest_seconds(backlog));
}

fn oldest_seconds(backlog: Option<Backlog>) -> f64 {
    match backlog {
        Some(Backlog { messages: 0, .. }) => 0.0,
        Some(Backlog { oldest_age: Some(age), .. }) => age.as_secs_f64(),
        _ => UNKNOWN,
    }
}
