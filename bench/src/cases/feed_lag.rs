//! From the commit of an order to its customer, who follows the event feed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use shared::domain::clock::Clock;
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::{absolute, create};
use crate::bench::Bench;
use crate::feed_client::Stream;
use crate::load::{self, Creates, Shape, Tally};
use crate::report::{About, Outcome, Target, number};
use crate::servers::pool;
use crate::stats::{float, latencies, quantile_ms, record};
use crate::{programs, tokens, wait};

pub(super) const ABOUT: About = About {
    case: "feed-lag",
    unit: "ms",
    target: Target::Below(100.0),
    text: "Two hundred customers follow their own orders by a stream each, while they create orders at half of the rate that the create \
           case reached. For each order, PostgreSQL's commit time of its event is taken from the time at which its customer's client has \
           it. The value is the 99th percentile.",
};

/// Customers, each with a stream.
const CUSTOMERS: i64 = 200;
/// More than are ever under way at that rate.
const CONNECTIONS: usize = 128;
/// The start of the run, which fills pools and prepares statements, does not count.
const SETTLING: Duration = Duration::from_secs(2);

/// When the event of each order came, in microseconds since the Unix epoch.
type Arrivals = Arc<Mutex<HashMap<i64, i64>>>;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("feed-lag: opening the streams".into());
    bench.servers.flush().await?;
    let database = bench.servers.database("followed_live").await?;
    let db = pool(&database).await?;
    let api = programs::api(&bench.environment(&database), bench.servers.folder()).await?;
    let create_rate = match bench.create_rate() {
        Some(rate) => rate,
        None => {
            create::create_orders(bench, &api, &create::create_requests()?, bench.plan.seconds).await?.rate
        }
    };
    let address = load::address(&api.url)?;
    let customers = (1..=CUSTOMERS).map(tokens::access).collect::<anyhow::Result<Vec<_>>>()?;
    let arrivals = Arrivals::default();
    let mut streams = JoinSet::new();
    for token in &customers {
        let stream = Stream::open(&address, token, "now").await?;
        streams.spawn(follow(stream, Arc::clone(&arrivals)));
    }

    let rate = create_rate / 2.0;
    bench.progress.step(format!("feed-lag: {} orders a second", number(rate)));
    let begun = unix_micros();
    let tally = Arc::new(Tally::new());
    let shape = Shape { address, rate, duration: bench.plan.lag + SETTLING, connections: CONNECTIONS };
    load::generate(&shape, &Arc::new(Creates::new(&customers)), &tally).await;
    let answers = tally.answers();
    ensure!(
        answers.failed() + answers.shed() + answers.refused() == 0,
        "requests failed: {}",
        answers.outcomes()
    );

    let commits = commits_since(&db, begun).await?;
    ensure!(!commits.is_empty(), "nothing was created");
    let arrived = || arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    wait::until("every event has reached its customer", async || {
        Ok(commits.iter().all(|(order, _)| arrived().contains_key(order)))
    })
    .await?;
    streams.abort_all();
    api.stop().await?;
    db.close().await;

    let settled = begun + i64::try_from(SETTLING.as_micros())?;
    let mut lags = latencies();
    for (order, commit) in commits.iter().filter(|(_, commit)| *commit >= settled) {
        let came = *arrived().get(order).context("an event that did not come")?;
        record(&mut lags, Duration::from_micros((came - commit).max(0).unsigned_abs()));
    }
    let p99 = quantile_ms(&lags, 0.99);
    let notes = vec![format!(
        "{} orders a second, {} events in all: p50 {} ms, p99 {} ms, p99.9 {} ms, slowest {} ms.",
        number(rate),
        number(float(lags.len())),
        number(quantile_ms(&lags, 0.5)),
        number(p99),
        number(quantile_ms(&lags, 0.999)),
        number(quantile_ms(&lags, 1.0)),
    )];
    let mut outcome = absolute(ABOUT, &[p99], notes);
    outcome.latencies = vec![("lag", lags), ("the answer to the client", answers.all())];
    Ok(outcome)
}

/// Records when the event of each order comes.
async fn follow(mut stream: Stream, arrivals: Arrivals) -> anyhow::Result<()> {
    loop {
        let mut orders = Vec::new();
        stream.read_blocks(|event| orders.extend(order_of(event))).await?;
        let now = unix_micros();
        let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.extend(orders.into_iter().map(|order| (order, now)));
    }
}

/// The order of an event, which is the first number of its data.
fn order_of(event: &[u8]) -> Option<i64> {
    const FIELD: &[u8] = br#""order_id":"#;
    let at = memchr::memmem::find(event, FIELD)? + FIELD.len();
    let digits: Vec<u8> = event[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// Each order that was committed since then, and when, in microseconds since the Unix epoch.
async fn commits_since(db: &PgPool, since: i64) -> anyhow::Result<Vec<(i64, i64)>> {
    Ok(sqlx::query_as(
        "SELECT order_id, at FROM (
             SELECT order_id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint AS at FROM outbox
         ) t WHERE at >= $1",
    )
    .bind(since)
    .fetch_all(db)
    .await?)
}

fn unix_micros() -> i64 {
    i64::try_from(Clock::System.now().unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}
