//! Publishing a large backlog against a small one.

use std::time::{Duration, Instant};

use anyhow::ensure;
use redis::aio::MultiplexedConnection;
use sqlx::PgPool;

use super::{Sample, alternate};
use crate::bench::Bench;
use crate::report::{About, Outcome, Target};
use crate::servers::pool;
use crate::stats::{float, latencies};
use crate::{broker, dataset, programs};

pub(super) const ABOUT: About = About {
    case: "backlog",
    unit: "events/s",
    target: Target::AtLeast(0.85),
    text: "An API is started on a log with a million events that have not been published, as after a long outage of the \
           broker, and its relay publishes them to Redis Streams. The reference is itself with ten thousand, ten times: the \
           cost of an event must not grow with the backlog.",
};

/// How often the small backlog is published in a round: once takes a tenth of a second, in which chance decides.
const SMALL: u32 = 10;
/// Between two looks at how far the relay is.
const LOOK: Duration = Duration::from_millis(5);

/// A log, and how the relay stood before it was written.
struct Backlog {
    url: String,
    db: PgPool,
    events: u64,
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let (large, small) = bench.plan.backlog;
    bench.progress.step(format!("backlog: writing {large} events"));
    let large = Backlog::write(bench, "backlog_large", large).await?;
    let small = Backlog::write(bench, "backlog_small", small).await?;
    let rounds = alternate(
        bench,
        "backlog",
        bench.plan.long_rounds,
        async |_| large.sample(bench, 1).await,
        async |_| small.sample(bench, SMALL).await,
    )
    .await?;
    large.db.close().await;
    small.db.close().await;
    bench.servers.flush().await?;
    Ok(rounds.outcome(ABOUT, Vec::new()))
}

impl Backlog {
    async fn write(bench: &Bench, name: &str, events: i64) -> anyhow::Result<Self> {
        let url = bench.servers.database(name).await?;
        let db = pool(&url).await?;
        dataset::append_created_events(&db, 1, events).await?;
        // As if they had been recorded, too, so that only the relay publishes them and not the reconciler.
        dataset::record_outbox_history(&db).await?;
        sqlx::query("CREATE TABLE relay_before AS SELECT * FROM relay").execute(&db).await?;
        Ok(Self { url, db, events: u64::try_from(events)? })
    }

    /// The rate of publishing all of it, repeated this many times.
    async fn sample(&self, bench: &Bench, times: u32) -> anyhow::Result<Sample> {
        let (mut events, mut took) = (0, Duration::ZERO);
        for _ in 0..times {
            let (published, within) = self.publish(bench).await?;
            events += published;
            took += within;
        }
        Ok(Sample { rate: float(events) / took.as_secs_f64(), latency: latencies() })
    }

    /// Has all of it published from the beginning, and returns their number and the time that it took, from the first look
    /// that saw any to the last.
    async fn publish(&self, bench: &Bench) -> anyhow::Result<(u64, Duration)> {
        sqlx::raw_sql("DELETE FROM relay; TRUNCATE log_pages; INSERT INTO relay SELECT * FROM relay_before")
            .execute(&self.db)
            .await?;
        bench.servers.flush().await?;
        let mut redis = bench.servers.redis().await?;
        let mut api = programs::api(&bench.environment(&self.url), bench.servers.folder()).await?;
        let mut first = None;
        loop {
            let (done, now) = (added(&mut redis).await?, Instant::now());
            match first {
                None if done > 0 => first = Some((done, now)),
                Some((before, since)) if done >= self.events => {
                    api.stop().await?;
                    ensure!(done == self.events, "{done} events were published of {}", self.events);
                    return Ok((done - before, now.duration_since(since)));
                }
                _ => {}
            }
            ensure!(!api.ended()?, "the API has ended");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How many events have ever been appended to the stream.
async fn added(redis: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    Ok(redis::cmd("XLEN").arg(broker::STREAM).query_async(redis).await?)
}
