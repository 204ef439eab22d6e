//! How much memory both programs take.

use std::time::Duration;

use super::{absolute, create};
use crate::bench::Bench;
use crate::programs;
use crate::report::{About, Outcome, Target, number};
use crate::stats::float;

pub(super) const ABOUT: About = About {
    case: "memory",
    unit: "MiB",
    target: Target::Below(80.0),
    text: "The largest resident size of the API and of a worker that was seen under the create load, over 64 connections \
           at full speed. The value is that of the larger program.",
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// So many runs' lengths at full load.
const RUNS: u32 = 4;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("memory: starting".into());
    bench.servers.flush().await?;
    let environment = bench.environment(&bench.servers.database("remembering").await?);
    let api = programs::api(&environment, bench.servers.folder()).await?;
    let worker = programs::worker(&environment, bench.servers.folder()).await?;
    let idle = (mib(api.resident()?), mib(worker.resident()?));
    let requests = create::create_requests()?;

    bench.progress.step("memory: the create load".into());
    let mut peak = idle;
    let mut ticks = tokio::time::interval(LOOK);
    let run = {
        let load = create::create_orders(bench, &api, &requests, bench.plan.seconds * RUNS);
        tokio::pin!(load);
        loop {
            tokio::select! {
                run = &mut load => break run?,
                _ = ticks.tick() => {
                    peak = (peak.0.max(mib(api.resident()?)), peak.1.max(mib(worker.resident()?)));
                }
            }
        }
    };
    worker.stop().await?;
    api.stop().await?;
    let notes = vec![
        format!(
            "API: {} MiB idle, {} MiB at most. Worker: {} MiB idle, {} MiB at most.",
            number(idle.0),
            number(peak.0),
            number(idle.1),
            number(peak.1)
        ),
        format!("With the worker beside, {} orders were created a second.", number(run.rate)),
    ];
    Ok(absolute(ABOUT, &[peak.0.max(peak.1)], notes))
}

fn mib(bytes: u64) -> f64 {
    float(bytes) / 1024.0 / 1024.0
}
