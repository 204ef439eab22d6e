//! One worker emptying the stream.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;
use sqlx::{Executor, PgPool};

use super::{Sample, alternate};
use crate::bench::Bench;
use crate::cpu::Costs;
use crate::dataset::CUSTOMERS;
use crate::pgbench::Length;
use crate::programs::{self, Environment};
use crate::redis_target::RedisTarget;
use crate::report::{About, Outcome, Target};
use crate::servers::pool;
use crate::stats::{float, latencies};
use crate::{broker, dataset};

pub(super) const ABOUT: About = About {
    case: "consume",
    unit: "events/s",
    target: Target::AtLeast(0.4),
    text: "One worker takes 200,000 creations from Redis Streams, writes a history row and a cache entry for each, and \
           acknowledges them. The reference: pgbench inserting as many history rows in statements of 100, one client \
           as there is one worker, prepared; it reads no stream, parses no event, and writes no cache.",
};

/// Rows in one statement of the reference.
const ROWS: i64 = 100;
/// Between two looks at how far the worker is.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("consume: preparing".into());
    let system = bench.servers.database("consuming").await?;
    let reference = bench.servers.database("consuming_reference").await?;
    let (db, reference_db) = (pool(&system).await?, pool(&reference).await?);
    let script = script()?;
    let events = bench.plan.events;
    let mut next = 1;
    let mut notes = Vec::new();
    let rounds = alternate(
        bench,
        "consume",
        bench.plan.long_rounds,
        async |_| {
            let redis = RedisTarget::Single(&bench.servers);
            let (rate, costs) = consume_events(bench, &system, &db, &redis, next).await?;
            next += events;
            notes = costs.note("an event").into_iter().collect();
            Ok(Sample { rate, latency: latencies() })
        },
        async |_| {
            reference_db.execute("TRUNCATE order_history").await?;
            let times = Length::Times(u64::try_from(events / ROWS)?);
            let run = bench.pgbench.run(&reference, &script, 1, times).await?;
            #[expect(clippy::cast_precision_loss, reason = "it is one hundred")]
            Ok(Sample { rate: run.rate * ROWS as f64, latency: latencies() })
        },
    )
    .await?;
    db.close().await;
    reference_db.close().await;
    Ok(rounds.outcome(ABOUT, notes))
}

/// Fills the stream with the creations of orders from `first`, starts a worker, and returns its rate, from the first events
/// acknowledged to the last, and what it took.
pub(super) async fn consume_events(
    bench: &Bench,
    database: &str,
    db: &PgPool,
    target: &RedisTarget<'_>,
    first: i64,
) -> anyhow::Result<(f64, Costs)> {
    db.execute("TRUNCATE order_history").await?;
    target.flush().await?;
    let environment = Environment { redis_url: target.url().to_owned(), ..bench.environment(database) };
    let mut redis = target.connect_to_stream().await?;
    let all = u64::try_from(bench.plan.events)?;
    publish(bench, target, first).await?;
    let mut worker = programs::worker(&environment, bench.servers.folder()).await?;
    let mut costs = bench.servers.costs("the worker", &worker);
    costs.begin();
    let mut first = None;
    let rate = loop {
        let (done, now) = (acknowledged(&mut redis, all).await?, Instant::now());
        match first {
            None if done > 0 => first = Some((done, now)),
            Some((before, since)) if done >= all => {
                costs.end(all);
                break float(all - before) / now.duration_since(since).as_secs_f64();
            }
            _ => {}
        }
        ensure!(!worker.ended()?, "the worker has ended");
        tokio::time::sleep(LOOK).await;
    };
    worker.stop().await?;
    verify(bench, db, target).await?;
    Ok((rate, costs))
}

/// Fills the stream by the sink that the relay uses.
async fn publish(bench: &Bench, target: &RedisTarget<'_>, first: i64) -> anyhow::Result<()> {
    let sink = broker::redis_sink(target.url()).await?;
    broker::publish_created_events(&*sink, first..first + bench.plan.events).await
}

/// How many events the group has read and acknowledged.
async fn acknowledged(redis: &mut MultiplexedConnection, all: u64) -> anyhow::Result<u64> {
    let groups: Vec<std::collections::HashMap<String, redis::Value>> =
        redis::cmd("XINFO").arg("GROUPS").arg(broker::STREAM).query_async(redis).await.unwrap_or_default();
    let Some(group) = groups.first() else { return Ok(0) };
    let number = |name: &str| -> anyhow::Result<u64> {
        let value = group.get(name).with_context(|| format!("XINFO GROUPS does not report {name}"))?;
        Ok(redis::from_redis_value_ref(value)?)
    };
    let (read, pending) = (number("entries-read").unwrap_or_default(), number("pending")?);
    Ok(read.min(all).saturating_sub(pending))
}

/// Every event has its row, and its entry if the worker creates any.
async fn verify(bench: &Bench, db: &PgPool, target: &RedisTarget<'_>) -> anyhow::Result<()> {
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM order_history").fetch_one(db).await?;
    ensure!(rows == bench.plan.events, "{rows} history rows of {} events", bench.plan.events);
    if !target.creates_entries() {
        return Ok(());
    }
    let keys = target.keys().await?;
    ensure!(keys >= bench.plan.events, "{keys} cache entries of {} events", bench.plan.events);
    Ok(())
}

/// A statement of 100 rows with the same contents.
fn script() -> anyhow::Result<String> {
    let event = dataset::created_event(4_242_424_242)?;
    let changes = crate::pgbench::literal(event.data.changes.json());
    let last = ROWS - 1;
    Ok(format!(
        "\\set at :at + {ROWS}
         INSERT INTO order_history
             (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT :at + row, 1, 'CREATED', {changes}, 1 + row % {CUSTOMERS}, 1 + row % {CUSTOMERS}, gen_random_uuid(), now()
         FROM generate_series(0, {last}) row
         ON CONFLICT (order_id, version) DO NOTHING;\n"
    ))
}
