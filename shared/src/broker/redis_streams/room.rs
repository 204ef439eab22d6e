//! Whether the stream may take more of Redis' memory.
//!
//! What is not published is safe in the outbox, while nothing else has the sessions and counts that Redis holds: it evicts them for
//! a stream that nobody reads.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::platform::redis::{Redis, info_field};

/// The most that the stream takes of `maxmemory`, in percent.
const MOST_PERCENT: u64 = 75;
/// How often to look,
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// and after how many published bytes at the latest.
const LOOK_AFTER: usize = 8 * 1024 * 1024;

/// The memory of the stream as it was last looked at.
#[derive(Debug, Default)]
pub(super) struct StreamRoom(Mutex<LastLook>);

#[derive(Debug, Default)]
struct LastLook {
    at: Option<Instant>,
    published: usize,
    problem: Option<String>,
}

impl StreamRoom {
    /// Why `bytes` more must wait; `None` if there is room for them, no `maxmemory` is set, or Redis does not say.
    pub(super) async fn problem(&self, redis: &Redis, stream: &str, bytes: usize) -> Option<String> {
        let mut last = self.0.lock().await;
        last.published = last.published.saturating_add(bytes);
        if last.published > LOOK_AFTER || last.at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            let problem = find_problem(redis, stream).await;
            *last = LastLook { at: Some(Instant::now()), published: bytes, problem };
        }
        last.problem.clone()
    }
}

async fn find_problem(redis: &Redis, stream: &str) -> Option<String> {
    let info: String = redis.run_command(redis::cmd("INFO").arg("memory")).await.ok()?;
    let number = |name| info_field(&info, name)?.parse::<u64>().ok();
    let most = number("maxmemory")? / 100 * MOST_PERCENT;
    if most == 0 || number("used_memory")? <= most {
        return None;
    }
    // All nodes of the stream and not a sample, which takes some milliseconds if there are very many: their sizes differ much.
    let mut ask = redis::cmd("MEMORY");
    ask.arg("USAGE").arg(stream).arg("SAMPLES").arg(0);
    let used = redis.run_command::<Option<u64>>(&ask).await.ok()??;
    (used > most).then(|| {
        format!(
            "the stream {stream} has {used} bytes, over {MOST_PERCENT} % of Redis' maxmemory: events wait until workers have handled some"
        )
    })
}
