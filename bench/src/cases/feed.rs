//! Catching up with the event feed, against what PostgreSQL itself can hand out.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, ensure};
use testbed::install::PSQL;
use tokio::process::Command;

use super::{Sample, alternate};
use crate::bench::Bench;
use crate::feed_client::Stream;
use crate::report::{About, Outcome, Target};
use crate::servers::pool;
use crate::stats::{float, latencies};
use crate::{dataset, load, programs, tokens, wait};

pub(super) const ABOUT: About = About {
    case: "feed",
    unit: "events/s",
    target: Target::AtLeast(0.5),
    text: "An administrator reads a log of a million events from its start, by one stream of server-sent events. The reference is \
           `COPY (SELECT payload FROM outbox) TO STDOUT` by psql: the same events, in no order and without cursors.",
};

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    let (events, _) = bench.plan.backlog;
    bench.progress.step(format!("feed: writing {events} events"));
    let psql = PSQL.binary().await.context("the reference psql is needed")?;
    let url = bench.servers.database("followed").await?;
    let db = pool(&url).await?;
    dataset::append_created_events(&db, 1, events).await?;
    dataset::record_outbox_history(&db).await?;
    let api = programs::api(&bench.environment(&url), bench.servers.folder()).await?;
    wait::until("every event is published", async || {
        let published: i64 =
            sqlx::query_scalar("SELECT published_position FROM relay").fetch_one(&db).await?;
        Ok(published == events)
    })
    .await?;
    let address = load::address(&api.url)?;
    let token = tokens::admin(1)?;
    let count = u64::try_from(events)?;
    let sample =
        |took: Instant| Sample { rate: float(count) / took.elapsed().as_secs_f64(), latency: latencies() };
    let rounds = alternate(
        bench,
        "feed",
        bench.plan.long_rounds,
        async |_| {
            let begun = Instant::now();
            Stream::open(&address, &token, "start").await?.count(count).await?;
            Ok(sample(begun))
        },
        async |_| {
            let begun = Instant::now();
            let status = Command::new(&psql)
                .args([url.as_str(), "-X", "-q", "-c", "COPY (SELECT payload FROM outbox) TO STDOUT"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .await?;
            ensure!(status.success(), "psql: {status}");
            Ok(sample(begun))
        },
    )
    .await?;
    api.stop().await?;
    db.close().await;
    bench.servers.flush().await?;
    Ok(rounds.outcome(ABOUT, Vec::new()))
}
