//! The metrics and log lines of the consumer, among them one line for each event.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, gauge, histogram};
use shared::{
    broker::{Backlog, BrokerError, Delivery, EventSource, EventSystem},
    domain::event::Event,
    platform::service::{GAUGE_TIMEOUT, UNKNOWN},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::outcome::Failure;
use crate::errors::chain;

/// What became of one event, as metrics and log lines call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventStatus {
    Handled,
    Retried,
    DeadLettered,
    HandedBack,
}

impl EventStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Retried => "retried",
            Self::DeadLettered => "dead_lettered",
            Self::HandedBack => "handed_back",
        }
    }
}

/// A processed event.
pub(super) struct EventRecord<'a> {
    pub(super) system: EventSystem,
    pub(super) event: Option<&'a Event>,
    pub(super) attempt: u32,
    pub(super) status: EventStatus,
    pub(super) failure: Option<&'a Failure>,
    pub(super) finished: Finished,
}

/// When a batch, or a dead letter, was finished.
#[derive(Clone, Copy)]
pub(super) struct Finished {
    /// The time since it was received.
    pub(super) took: Duration,
    pub(super) at: OffsetDateTime,
}

/// The metrics of a batch's events, looked up once for all of them.
pub(super) struct Meters {
    handled: Counter,
    lag: Histogram,
}

impl Meters {
    pub(super) fn of(system: EventSystem) -> Self {
        let lag = histogram!("worker_event_lag_seconds", "broker" => system.as_str());
        Self { handled: events_counter(system, EventStatus::Handled), lag }
    }
}

fn events_counter(system: EventSystem, status: EventStatus) -> Counter {
    counter!("worker_events_total", "broker" => system.as_str(), "outcome" => status.as_str())
}

impl EventRecord<'_> {
    /// Counts the event and logs its line.
    pub(super) fn record(&self, meters: &Meters) {
        let broker = self.system.as_str();
        let outcome = self.status.as_str();
        let lag =
            self.event.map(|event| Duration::try_from(self.finished.at - event.time).unwrap_or_default());
        if self.status == EventStatus::Handled {
            meters.handled.increment(1);
            if let Some(lag) = lag {
                meters.lag.record(lag);
            }
        } else {
            events_counter(self.system, self.status).increment(1);
        }
        // The reason why a body cannot be read may quote from it, which belongs only in the dead letter.
        let reason = self.failure.filter(|_| self.event.is_some()).map(|failure| failure.reason.as_str());
        let mut id = Uuid::encode_buffer();
        tracing::info!(
            event.id = self.event.map(|event| &*event.id.hyphenated().encode_lower(&mut id)),
            event.r#type = self.event.map(|event| event.event_type.as_str()),
            order.id = self.event.map(|event| event.data.order_id.get()),
            version = self.event.map(|event| event.data.version),
            attempt = self.attempt,
            outcome,
            failed.source = self.failure.map(|failure| failure.source),
            failed.reason = reason,
            duration_ms = millis(self.finished.took),
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

/// Counts the events of a received batch.
pub(super) fn record_received(system: EventSystem, batch: &[Delivery]) {
    let broker = system.as_str();
    let redelivered = batch.iter().filter(|delivery| delivery.attempt > 1).count();
    counter!("worker_events_received_total", "broker" => broker).increment(batch.len() as u64);
    counter!("worker_events_redelivered_total", "broker" => broker).increment(redelivered as u64);
    #[expect(clippy::cast_precision_loss, reason = "batches are far smaller than 2^52")]
    histogram!("worker_batch_events", "broker" => broker).record(batch.len() as f64);
}

/// Records the duration of one call of a handler.
pub(super) fn record_handler_call(handler: &'static str, system: EventSystem, took: Duration) {
    histogram!("worker_handler_duration_seconds", "handler" => handler, "broker" => system.as_str())
        .record(took);
}

/// Counts a stored dead letter.
pub(super) fn count_dead_letter(system: EventSystem, source: &'static str) {
    counter!("worker_dead_letters_total", "broker" => system.as_str(), "source" => source).increment(1);
}

/// Logs that a batch is held after this many failed tries.
pub(super) fn log_held_batch(part: &'static str, error: &str, tries: u32) {
    // After 1, 2, 4, 8, … tries: an outage can be long.
    if tries.is_power_of_two() {
        tracing::warn!(part, error, tries, "holding a batch until a dependency is available again");
    }
}

/// Logs that a batch succeeded after it was held.
pub(super) fn log_released_batch(part: &'static str, tries: u32) {
    if tries > 0 {
        tracing::info!(part, tries, "a held batch succeeded");
    }
}

/// Records that receiving failed this many times in a row.
pub(super) fn record_source_failure(system: EventSystem, error: &BrokerError, failures: u32) {
    counter!("worker_source_failures_total", "broker" => system.as_str()).increment(1);
    if failures.is_power_of_two() {
        tracing::warn!(broker = %system, error = chain(error), failures, "cannot receive events");
    }
}

/// Records that settlements failed.
pub(super) fn record_settle_failure(system: EventSystem, error: &BrokerError) {
    counter!("worker_settle_failures_total", "broker" => system.as_str()).increment(1);
    tracing::warn!(broker = %system, error = chain(error), "could not settle events; they come again");
}

/// Sets the gauges of the broker's backlog. Without an answer, or before the broker is connected, they are [`UNKNOWN`].
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
