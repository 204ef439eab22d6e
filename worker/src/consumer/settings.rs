//! How a consumer works.

use std::time::Duration;

use shared::platform::backoff::Backoff;

/// How a consumer works.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// How many events a batch has at most; fewer if they are large.
    pub batch_size: usize,
    /// How many batches are in flight at the same time.
    pub concurrency: usize,
    /// After how many attempts an event becomes a dead letter.
    pub max_attempts: u32,
    /// How long one receive waits for events. A stop is noticed with this delay.
    pub wait: Duration,
    /// After this time a call of a handler is cancelled. It is longer than any limit inside of handlers, so that a
    /// dependency that does not answer is never mistaken for a handler that hangs: the history may have to wait for the
    /// statement before its own, each of both for a connection, a refused batch, and its parts one by one.
    pub handler_deadline: Duration,
    /// The wait before the next attempt of an event.
    pub retry: Backoff,
    /// The wait before a held batch is tried again, and before the next receive after an error of the source.
    pub hold: Backoff,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            batch_size: 250,
            concurrency: 4,
            max_attempts: 5,
            wait: Duration::from_secs(1),
            handler_deadline: Duration::from_secs(40),
            retry: Backoff::new(Duration::from_secs(1), Duration::from_mins(1)),
            hold: Backoff::new(Duration::from_millis(100), Duration::from_secs(3)),
        }
    }
}
