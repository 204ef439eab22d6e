//! The limits of the feed.

use std::time::Duration;

/// The limits of the feed. Tests change them; operators cannot.
#[derive(Clone, Copy, Debug)]
pub struct FeedSettings {
    /// How often the end of the log is read while somebody waits for it, if another process gives out the positions.
    pub poll: Duration,
    /// The recent events that are kept in memory: at most this many,
    pub recent_events: usize,
    /// and at most this many bytes of them.
    pub recent_bytes: usize,
    /// How many pages are read from the database at once for readers that are further behind.
    pub catch_ups: usize,
    /// How many streams can hold such a page at once, each about a megabyte,
    pub held_pages: usize,
    /// and how many other responses.
    pub passing_pages: usize,
    /// Open streams of the process.
    pub streams: usize,
    /// Open streams of one customer in this process.
    pub streams_per_customer: usize,
    /// After how long without an event a stream sends a comment, so that nobody takes the connection for dead.
    pub heartbeat: Duration,
    /// A stream that has caught up is cut off if so many bytes of the log wait
    pub max_behind: usize,
    /// and its client has accepted nothing for this long. One that is catching up is cut off after this time, too, if others wait for
    /// its page.
    pub stalled_after: Duration,
}

impl Default for FeedSettings {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(25),
            recent_events: 4096,
            recent_bytes: 8 * 1024 * 1024,
            catch_ups: 4,
            held_pages: 64,
            passing_pages: 16,
            streams: 1000,
            streams_per_customer: 5,
            heartbeat: Duration::from_secs(15),
            max_behind: 256 * 1024,
            stalled_after: Duration::from_secs(1),
        }
    }
}
