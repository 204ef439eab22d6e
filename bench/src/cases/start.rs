//! How long the programs take to start.

use super::absolute;
use crate::bench::Bench;
use crate::programs;
use crate::report::{About, Outcome, Target, number};
use crate::stats::median;

pub(super) const ABOUT: About = About {
    case: "start",
    unit: "s",
    target: Target::Below(0.5),
    text: "From the start of the process to the first 200 of its readiness route, on a migrated database. The value is \
           that of the slower program in each round.",
};

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("start: migrating".into());
    bench.servers.flush().await?;
    let environment = bench.environment(&bench.servers.database("starting").await?);
    let folder = bench.servers.folder();
    bench.progress.step("start: starting".into());
    let (mut of_api, mut of_worker) = (Vec::new(), Vec::new());
    for _ in 0..bench.plan.starts {
        let api = programs::api(&environment, folder).await?;
        of_api.push(api.took.as_secs_f64());
        let worker = programs::worker(&environment, folder).await?;
        of_worker.push(worker.took.as_secs_f64());
        worker.stop().await?;
        api.stop().await?;
    }
    let slower: Vec<f64> = of_api.iter().zip(&of_worker).map(|(api, worker)| api.max(*worker)).collect();
    let notes = vec![format!(
        "API {} s, worker {} s (medians).",
        number(median(&of_api)),
        number(median(&of_worker))
    )];
    Ok(absolute(ABOUT, &slower, notes))
}
