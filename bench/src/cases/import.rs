//! Importing two-line orders.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use super::export::Peak;
use super::{Sample, alternate, create};
use crate::bench::Bench;
use crate::programs;
use crate::report::{About, Outcome, Target};
use crate::servers::pool;
use crate::stats::{float, latencies};
use crate::{streams, tokens};

pub(super) const ABOUT: About = About {
    case: "import",
    unit: "orders/s",
    target: Target::AtLeast(1.5),
    text: "POST /api/v1/orders/import of NDJSON by an administrator over one connection, whose results are read meanwhile: \
           orders with two lines of a thousand customers. The reference: the same orders by single requests over 64 \
           connections, as in `create`.",
};

/// Customers who take turns.
const CUSTOMERS: i64 = 1000;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("import: warming up".into());
    bench.servers.flush().await?;
    let database = bench.servers.database("importing").await?;
    let db = pool(&database).await?;
    let api = programs::api(&bench.environment(&database), bench.servers.folder()).await?;
    let (file, requests) = (file(bench.plan.imported), create::create_requests()?);
    let (token, rows) = (tokens::admin(1)?, u64::try_from(bench.plan.imported)?);
    create::create_orders(bench, &api, &requests, bench.plan.warm_up).await?;
    create::published(&db).await?;
    let mut peak = Peak::default();
    let rounds = alternate(
        bench,
        "import",
        bench.plan.rounds,
        async |_| {
            let begun = Instant::now();
            let body = Some(("application/x-ndjson", file.clone()));
            let import = streams::exchange(&api.url, Method::POST, "/api/v1/orders/import", &token, body);
            let imported = peak.watch(&api, import).await?;
            let took = begun.elapsed();
            let end: Value =
                serde_json::from_str(&imported.last_line).context("the import has no last line")?;
            ensure!(end["created"] == rows, "not every row was placed: {end}");
            create::published(&db).await?;
            create::recorded(&db).await?;
            Ok(Sample { rate: float(rows) / took.as_secs_f64(), latency: latencies() })
        },
        async |_| {
            let run = create::create_orders(bench, &api, &requests, bench.plan.seconds).await?;
            create::published(&db).await?;
            create::recorded(&db).await?;
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
    )
    .await?;
    db.close().await;
    api.stop().await?;
    let notes = vec![format!("Memory of the API: {}.", peak.describe())];
    Ok(rounds.outcome(ABOUT, notes))
}

/// Rows with the orders that `create` sends.
fn file(rows: i64) -> Bytes {
    let file = (0..rows).fold(String::new(), |mut file, row| {
        let customer = 1 + row % CUSTOMERS;
        let order = crate::load::order(u32::try_from(customer).unwrap_or_default(), 2);
        // The owner is the first field.
        let fields = String::from_utf8_lossy(&order).trim_start_matches('{').to_owned();
        let _infallible = writeln!(file, "{{\"customer_id\":{customer},{fields}");
        file
    });
    file.into()
}
