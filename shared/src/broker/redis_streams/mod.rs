//! Redis Streams: one stream, one consumer group, a consumer name per process.
//!
//! What holds here, and how:
//!
//! - **Confirmed** means that `XADD` answered with an entry id and, on Redis 7.2 or newer with the append-only file
//!   on, that `WAITAOF` saw it on disk. On an older server, or without the file, it is as durable as that server's own
//!   `appendfsync` and `save` settings. `WAITAOF` costs a batch about 4 ms with `appendfsync always`, which shares one
//!   fsync among the whole batch, and about 100 ms with `everysec` (measured on Valkey 9.1).
//! - **Order**: entries are handed out in the order of the stream, that of publishing. Retried and reclaimed ones
//!   come later than their neighbours.
//! - **Attempts** are the group's delivery count, which Redis raises as it hands an entry out: before any handler.
//! - **Kept**: a heartbeat (`XCLAIM … JUSTID`, which leaves the delivery count alone) resets the idle time of every
//!   entry that this process holds, handed out or delayed, so that no other consumer reclaims it while this one lives.
//! - **Reclaimed**: entries of a dead consumer are taken over (`XAUTOCLAIM`) once they have been idle for
//!   [`RedisStreamsOptions::min_idle`], by the next consumer that looks. Each consumer
//!   looks every [`RedisStreamsOptions::reclaim_every`] while it waits for new ones.
//! - **`retry(after)`** keeps the entry pending and delayed in this process, to within half a second of `after` while
//!   [`EventSource::receive`](super::EventSource::receive) is being called. If the process dies meanwhile, another one takes
//!   the entry over `min_idle` after the last heartbeat, whether that is earlier or later. When it closes, the
//!   remaining delay is kept as far as `min_idle` reaches.
//! - **Trimming** removes, about every [`RedisStreamsOptions::tidy_every`], what every group of the stream has
//!   acknowledged, in whole nodes of the stream; never by length. A group that nobody reads keeps the stream from being trimmed.
//! - **Healing**: if the group or the stream is gone (`FLUSHALL`, a lost server), the group is created again
//!   at the beginning of the stream.
//! - **Failing over**: with sentinels or a cluster, what a promotion has lost is published again by the reconciler. The blocking read
//!   has a connection of its own to the server that the other calls use, and leaves it together with them.
//! - Consumers that have been silent for long and hold nothing are removed, so that names do not accumulate.

mod consumer_state;
mod entries;
mod group;
mod in_flight;
mod maintenance;
mod reader;
mod reclaim;
mod removal;
mod room;
mod sink;
mod source;
#[cfg(test)]
pub(super) mod tests;

use std::time::Duration;

use redis::{ErrorKind, ServerErrorKind};
use secrecy::SecretString;

use super::{BrokerError, EventSystem, metered};
use crate::platform::redis::{Redis, RedisFailure};

pub use sink::RedisStreamsSink;
pub use source::RedisStreamsSource;

/// Where the events are, and how patient consumers are with each other.
#[derive(Clone, Debug)]
pub struct RedisStreamsOptions {
    /// The Redis that holds the stream.
    pub url: SecretString,
    /// The key of the stream.
    pub stream: String,
    /// The consumer group of the workers.
    pub group: String,
    /// How long an entry must be without a heartbeat before another consumer takes it over.
    pub min_idle: Duration,
    /// Between two heartbeats: well below `min_idle`.
    pub heartbeat: Duration,
    /// Between two looks for entries of dead consumers.
    pub reclaim_every: Duration,
    /// Between two trims.
    pub tidy_every: Duration,
    /// How long a consumer that holds nothing must be silent before its name is removed.
    pub consumer_expiry: Duration,
}

impl RedisStreamsOptions {
    /// The settings of production.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            stream: "events:orders".to_owned(),
            group: "workers".to_owned(),
            min_idle: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            reclaim_every: Duration::from_secs(1),
            tidy_every: Duration::from_secs(5),
            consumer_expiry: Duration::from_mins(10),
        }
    }
}

const SYSTEM: EventSystem = EventSystem::RedisStreams;

/// For every call but blocking reads, which have their own limit. Long enough for a `WAITAOF` and a slow disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long each step of closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to the stream's server; `side` names it in the metrics.
fn connection(options: &RedisStreamsOptions, side: &'static str) -> Result<Redis, BrokerError> {
    let redis = Redis::with_reconnect_hook(&options.url, move || metered::record_reconnect(SYSTEM, side));
    redis.map(|redis| redis.with_deadline(CALL_TIMEOUT).at_key(&options.stream)).map_err(|error| {
        // The text of the error may repeat the URL, which may hold a password.
        BrokerError::misconfigured(SYSTEM, format!("the address cannot be used ({})", error.category()))
    })
}

/// Whether waiting can help against a failure.
fn broker_error(failure: &RedisFailure) -> BrokerError {
    let RedisFailure::Failed(error) = failure else { return BrokerError::unavailable(SYSTEM, failure) };
    let for_operator = matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed
            | ErrorKind::InvalidClientConfig
            | ErrorKind::Server(ServerErrorKind::NoPerm)
    ) || failure.has_code(&["WRONGTYPE", "WRONGPASS", "NOAUTH"]);
    if for_operator {
        BrokerError::misconfigured(SYSTEM, error.to_string())
    } else {
        BrokerError::unavailable(SYSTEM, error)
    }
}
