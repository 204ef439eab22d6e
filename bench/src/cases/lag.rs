//! From the commit of an order to its history row.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use sqlx::PgPool;

use super::{absolute, create};
use crate::bench::Bench;
use crate::load::{self, Creates, Shape, Tally};
use crate::programs;
use crate::report::{About, LagPoint, Outcome, Target, number};
use crate::servers::pool;
use crate::stats::{Latencies, float, latencies, median, quantile_ms};
use crate::tokens;

pub(super) const ABOUT: About = About {
    case: "lag",
    unit: "ms",
    target: Target::Below(100.0),
    text: "Orders are created at half of the rate that the create case reached, at times of their own (open loop), with \
           one worker. For each order, PostgreSQL's commit time of its event is taken from that of its history row. The \
           value is the 99th percentile over all of them; rounds and spread are those of the single seconds.",
};

/// Customers who take turns.
const CUSTOMERS: i64 = 100;
/// More than are ever under way at that rate.
const CONNECTIONS: usize = 128;
/// The start of the run, which fills pools and prepares statements, does not count.
const SETTLING: Duration = Duration::from_secs(2);

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("lag: warming up".into());
    bench.servers.flush().await?;
    let database = bench.servers.database("lagging").await?;
    let environment = bench.environment(&database);
    let db = pool(&database).await?;
    let api = programs::api(&environment, bench.servers.folder()).await?;
    let worker = programs::worker(&environment, bench.servers.folder()).await?;
    let create_rate = match bench.create_rate() {
        Some(rate) => rate,
        None => {
            create::create_orders(bench, &api, &create::create_requests()?, bench.plan.seconds).await?.rate
        }
    };
    recorded(&db).await?;
    let begun: f64 =
        sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8").fetch_one(&db).await?;

    let rate = create_rate / 2.0;
    bench.progress.step(format!("lag: {} orders a second", number(rate)));
    let tokens = (1..=CUSTOMERS).map(tokens::access).collect::<anyhow::Result<Vec<_>>>()?;
    let tally = Arc::new(Tally::new());
    let shape = Shape {
        address: load::address(&api.url)?,
        rate,
        duration: bench.plan.lag + SETTLING,
        connections: CONNECTIONS,
    };
    load::generate(&shape, &Arc::new(Creates::new(&tokens)), &tally).await;
    recorded(&db).await?;
    let lags = measured(&db, begun + SETTLING.as_secs_f64()).await?;
    db.close().await;
    worker.stop().await?;
    api.stop().await?;

    let answers = tally.answers();
    ensure!(
        answers.failed() + answers.shed() + answers.refused() == 0,
        "requests failed: {}",
        answers.outcomes()
    );
    ensure!(!lags.is_empty(), "nothing was created");
    Ok(outcome(&lags, rate, answers.all()))
}

/// Waits until every event has its history row.
async fn recorded(db: &PgPool) -> anyhow::Result<()> {
    crate::wait::until("every event has its history row", async || {
        let (events, rows): (i64, i64) =
            sqlx::query_as("SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM order_history)")
                .fetch_one(db)
                .await?;
        Ok(events == rows)
    })
    .await
}

/// Seconds since the beginning and seconds of lag, for each event committed after `since` (seconds of the epoch).
async fn measured(db: &PgPool, since: f64) -> anyhow::Result<Vec<(f64, f64)>> {
    Ok(sqlx::query_as(
        "SELECT at - $1, lag FROM (
             SELECT extract(epoch FROM pg_xact_commit_timestamp(o.xmin))::float8 AS at,
                    extract(epoch FROM pg_xact_commit_timestamp(h.xmin) - pg_xact_commit_timestamp(o.xmin))::float8 AS lag
             FROM outbox o JOIN order_history h USING (order_id, version)
         ) t WHERE at >= $1 ORDER BY at",
    )
    .bind(since)
    .fetch_all(db)
    .await?)
}

fn outcome(lags: &[(f64, f64)], rate: f64, answers: Latencies) -> Outcome {
    let mut all = latencies();
    let mut points = Vec::new();
    let mut seconds = Vec::new();
    for quarters in lags.chunk_by(|a, b| same(a.0 * 4.0, b.0 * 4.0)) {
        let slice = histogram(quarters);
        points.push(LagPoint {
            at: quarters[0].0,
            p50: quantile_ms(&slice, 0.5),
            p99: quantile_ms(&slice, 0.99),
            max: quantile_ms(&slice, 1.0),
        });
    }
    for second in lags.chunk_by(|a, b| same(a.0, b.0)) {
        let slice = histogram(second);
        // A second that was cut off at the end has too few events to speak of a percentile.
        if float(slice.len()) > rate / 2.0 || seconds.is_empty() {
            seconds.push(quantile_ms(&slice, 0.99));
        }
        // They have the same bounds.
        let _fits = all.add(slice);
    }
    let notes = vec![
        format!("{} orders a second, {} events in all.", number(rate), number(float(all.len()))),
        format!(
            "Over the whole run: p50 {} ms, p99 {} ms, p99.9 {} ms, slowest {} ms; median second {} ms.",
            number(quantile_ms(&all, 0.5)),
            number(quantile_ms(&all, 0.99)),
            number(quantile_ms(&all, 0.999)),
            number(quantile_ms(&all, 1.0)),
            number(median(&seconds)),
        ),
    ];
    let mut outcome = absolute(ABOUT, &seconds, notes);
    let p99 = quantile_ms(&all, 0.99);
    outcome.row.value = Some(super::rounded(p99));
    outcome.row.met = ABOUT.target.is_met(p99);
    outcome.lag = points;
    outcome.latencies = vec![("lag", all), ("the answer to the client", answers)];
    outcome
}

fn same(a: f64, b: f64) -> bool {
    (a.floor() - b.floor()).abs() < f64::EPSILON
}

fn histogram(lags: &[(f64, f64)]) -> Latencies {
    let mut histogram = latencies();
    for (_, lag) in lags {
        crate::stats::record(&mut histogram, Duration::from_secs_f64(lag.max(0.0)));
    }
    histogram
}
