//! The metrics of the feed.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};

use super::event::FeedEvent;

/// Registers the descriptions; called once at start.
pub(super) fn describe_metrics() {
    describe_gauge!("feed_streams", "open streams of server-sent events");
    describe_counter!(
        "feed_bytes_total",
        Unit::Bytes,
        "bytes of events handed to readers, in pages and streams"
    );
    describe_counter!("feed_cut_offs_total", "streams cut off because their clients did not read");
    describe_histogram!(
        "feed_lag_seconds",
        Unit::Seconds,
        "from an event's position to handing it to a stream that has caught up"
    );
}

/// Counts bytes handed to readers.
pub fn count_bytes(bytes: usize) {
    counter!("feed_bytes_total").increment(u64::try_from(bytes).unwrap_or(u64::MAX));
}

/// Records how old the oldest event of a piece is when it is handed out.
pub(super) fn record_lag(oldest: &FeedEvent) {
    histogram!("feed_lag_seconds").record(oldest.age().as_secs_f64());
}
