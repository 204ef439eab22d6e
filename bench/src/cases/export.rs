//! Exporting all orders.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::Method;
use serde_json::Value;

use super::{Sample, alternate};
use crate::bench::Bench;
use crate::programs::{self, Running};
use crate::report::{About, Outcome, Target, number};
use crate::stats::{float, latencies};
use crate::{streams, tokens};

pub(super) const ABOUT: About = About {
    case: "export",
    unit: "orders/s",
    target: Target::AtLeast(0.5),
    text: "GET /api/v1/orders/export as NDJSON by an administrator: a million orders with two lines each, over one \
           connection. The reference: psql with COPY … TO STDOUT of the same columns, the lines of an order as arrays, in one \
           statement and in no order.",
};

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(50);

const COPY: &str = "COPY (SELECT o.*, l.* FROM orders o, LATERAL (
     SELECT array_agg(id), array_agg(position), array_agg(product_id), array_agg(quantity), array_agg(unit_price)
     FROM order_lines WHERE order_id = o.id) AS l) TO STDOUT";

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("export: warming up".into());
    bench.servers.flush().await?;
    let database = &bench.seeded().await?.system;
    let api = programs::api(&bench.environment(database), bench.servers.folder()).await?;
    let mut peak = Peak::default();
    let first = export(&api, &mut peak).await?.0;
    bench.pgbench.copy(database, COPY).await?;
    let rounds = alternate(
        bench,
        "export",
        bench.plan.long_rounds,
        async |_| {
            let (orders, took) = export(&api, &mut peak).await?;
            Ok(Sample { rate: float(orders) / took.as_secs_f64(), latency: latencies() })
        },
        async |_| {
            let begun = Instant::now();
            bench.pgbench.copy(database, COPY).await?;
            Ok(Sample { rate: float(first) / begun.elapsed().as_secs_f64(), latency: latencies() })
        },
    )
    .await?;
    api.stop().await?;
    let notes = vec![format!("Memory of the API: {}.", peak.describe())];
    Ok(rounds.outcome(ABOUT, notes))
}

/// Exports everything. Returns the number of orders and the time that it took.
async fn export(api: &Running, peak: &mut Peak) -> anyhow::Result<(u64, Duration)> {
    let token = tokens::admin(1)?;
    let begun = Instant::now();
    let exported = peak
        .watch(api, streams::exchange(&api.url, Method::GET, "/api/v1/orders/export", &token, None))
        .await?;
    let took = begun.elapsed();
    let end: Value = serde_json::from_str(&exported.last_line).context("the export has no last line")?;
    ensure!(end["complete"] == true, "the export is not complete: {end}");
    Ok((end["rows"].as_u64().context("the last line has no rows")?, took))
}

/// The resident size before anything was streamed, and the largest one that was seen meanwhile.
#[derive(Debug, Default)]
pub(super) struct Peak {
    idle: Option<u64>,
    most: u64,
}

impl Peak {
    /// Looks at the memory of the API until `work` is done.
    pub(super) async fn watch<T>(
        &mut self,
        api: &Running,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let now = api.resident()?;
        self.idle.get_or_insert(now);
        let mut ticks = tokio::time::interval(LOOK);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => self.most = self.most.max(api.resident()?),
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        let mib = |bytes: u64| number(float(bytes) / 1024.0 / 1024.0);
        format!("{} MiB before, {} MiB at most", mib(self.idle.unwrap_or_default()), mib(self.most))
    }
}
