//! The metrics of the outbox. All replicas set the gauges, whose values are read at each scrape; only the holder of the lease
//! increments the counters.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use shared::{broker::EventSystem, platform::service::UNKNOWN};

use super::{backlog::OutboxBacklog, lag::Lag};

/// Registers the descriptions; called once at start.
pub(super) fn describe_metrics() {
    describe_gauge!("outbox_unpublished", "events committed and not yet published; estimated beyond 1,000");
    describe_gauge!(
        "outbox_oldest_unpublished_seconds",
        Unit::Seconds,
        "age of the oldest of these, 0 without any"
    );
    describe_gauge!(
        "history_unrecorded_events",
        "events committed and not yet in the history; estimated beyond 1,000"
    );
    describe_gauge!(
        "history_oldest_unrecorded_seconds",
        Unit::Seconds,
        "age of the oldest of these, 0 without any"
    );
    describe_gauge!("relay_lease_held", "1 on the replica that relays");
    describe_counter!("relay_published_total", "events that the broker confirmed");
    describe_counter!("relay_batches_total", "batches sent to the broker, with any result");
    describe_counter!("relay_retries_total", "events not confirmed, which are sent again");
    describe_counter!("relay_rejected_total", "events refused for good, which are dead letters now");
    describe_counter!(
        "relay_started_over_total",
        "restores found, after which all retained events are published again"
    );
    describe_histogram!(
        "relay_publish_duration_seconds",
        Unit::Seconds,
        "from handing a batch to the broker to its answer"
    );
    describe_histogram!(
        "relay_lag_seconds",
        Unit::Seconds,
        "from an event's transaction to its confirmation"
    );
    describe_counter!(
        "events_repaired_total",
        "events that the history lacked, published again by the reconciler"
    );
}

/// Counts the events of one batch by their result.
pub(super) fn count_batch(system: EventSystem, confirmed: u64, rejected: u64, unconfirmed: u64) {
    let broker = system.as_str();
    counter!("relay_batches_total", "broker" => broker).increment(1);
    counter!("relay_published_total", "broker" => broker).increment(confirmed);
    if rejected > 0 {
        counter!("relay_rejected_total", "broker" => broker).increment(rejected);
    }
    if unconfirmed > 0 {
        counter!("relay_retries_total", "broker" => broker).increment(unconfirmed);
    }
}

/// Records how long the broker took for one batch.
pub(super) fn record_publish_duration(system: EventSystem, took: Duration) {
    histogram!("relay_publish_duration_seconds", "broker" => system.as_str()).record(took.as_secs_f64());
}

/// Records how old the events of one batch were when they were confirmed.
pub(super) fn record_lag(system: EventSystem, ages_seconds: impl Iterator<Item = f64>) {
    let lag = histogram!("relay_lag_seconds", "broker" => system.as_str());
    ages_seconds.for_each(|age| lag.record(age));
}

/// Counts events that the reconciler published again.
pub(super) fn count_repaired(system: EventSystem, events: u64) {
    counter!("events_repaired_total", "broker" => system.as_str()).increment(events);
}

/// Sets the gauges of the backlog; `None` if it cannot be read.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and there are fewer than 2^52 events")]
pub(crate) fn set_backlog_gauges(backlog: Option<OutboxBacklog>) {
    let unpublished = backlog.map_or(UNKNOWN, |backlog| backlog.unpublished as f64);
    gauge!("outbox_unpublished").set(unpublished);
    let oldest = backlog.map_or(UNKNOWN, |backlog| backlog.oldest_seconds.unwrap_or(0.0));
    gauge!("outbox_oldest_unpublished_seconds").set(oldest);
}

/// Sets the gauges of the history's lag; `None` if it cannot be read.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and there are fewer than 2^52 events")]
pub(crate) fn set_lag_gauges(lag: Option<Lag>) {
    gauge!("history_unrecorded_events").set(lag.map_or(UNKNOWN, |lag| lag.events as f64));
    gauge!("history_oldest_unrecorded_seconds").set(lag.map_or(UNKNOWN, |lag| lag.oldest_seconds));
}

/// Sets whether this replica relays.
pub(crate) fn set_lease_gauge(lease_held: bool) {
    gauge!("relay_lease_held").set(if lease_held { 1.0 } else { 0.0 });
}
