//! From the broker to the handlers: batches, retries and dead letters. It knows events and outcomes, not what the events
//! mean: that is for the handlers.
//!
//! There are two kinds of failure. An event's **own** failure (an error that it causes, a panic, a call that does not return)
//! costs only that event: it is retried with backoff, and becomes a dead letter after its last attempt. If a **dependency is
//! down**, no event is at fault: the batch is held, for as long as necessary, and tried again until it succeeds; the heartbeat
//! of the source keeps it. So an outage of PostgreSQL loses no event and makes none a dead letter. Once every batch in
//! flight is held, no further events are received.

mod batch;
mod consume;
mod held;
mod isolate;
mod outcome;
mod settings;
mod spans;
mod telemetry;

pub use self::{
    consume::Consumer,
    held::{HeldBatches, HeldSummary},
    outcome::BatchSummary,
    settings::ConsumerSettings,
    telemetry::set_backlog_gauges,
};
