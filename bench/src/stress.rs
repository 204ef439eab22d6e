//! `cargo xtask stress`: raises the load until something fails, reports what, and checks that the system sheds what is too
//! much, keeps its memory bounded, recovers, and has lost nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::arguments::StressArgs;
use crate::load::{self, Answers, Mix, Shape, Tally, check_history};
use crate::report::number;
use crate::servers::pool;
use crate::stats::{float, quantile_ms};
use crate::system::System;

/// From one step to the next.
const FACTOR: f64 = 1.5;
/// A step beyond this share of the last good rate is overload.
const OVERLOAD: f64 = 2.0;
/// The load after it.
const CALM: f64 = 0.25;
/// Longer steps of the overload, to see whether memory grows.
const OVERLOAD_STEPS: u32 = 3;
/// How often calm is tried before the system counts as not recovered.
const CALM_STEPS: usize = 6;
/// What counts as something giving: every hundredth answer slower than this.
const SLOW_MS: f64 = 1000.0;
/// What counts as well again.
const WELL_MS: f64 = 250.0;
/// Each process stays below this, whatever comes.
const MOST_MEMORY: u64 = 512 << 20;
/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(100);

/// What a step showed.
struct Step {
    rate: f64,
    answers: Answers,
    took: Duration,
    /// The largest resident sizes of the API and of all workers together, if they are known.
    memory: Option<(u64, u64)>,
}

/// The system under stress.
struct Stress {
    system: System,
    mix: Arc<Mix>,
    address: String,
    connections: usize,
}

/// Does all of it.
pub async fn run_stress(arguments: StressArgs) -> anyhow::Result<()> {
    more_files()?;
    let system = System::find_or_start(&arguments.place).await?;
    let stress = Stress {
        mix: Arc::new(Mix::new(&system.tokens().await?)),
        address: load::address(&system.url)?,
        connections: arguments.connections,
        system,
    };
    let length = Duration::from_secs(arguments.step);
    let verdict = stress.phases(arguments.rate, length).await;
    stress.system.stop().await?;
    verdict
}

impl Stress {
    async fn phases(&self, first: f64, length: Duration) -> anyhow::Result<()> {
        println!("raising the load until something fails");
        let mut rate = first;
        let broken = loop {
            let step = self.step(rate, length).await?;
            if let Some(what) = step.gave() {
                println!("at {} requests a second: {what}", number(rate));
                break step;
            }
            rate *= FACTOR;
        };

        let overload = broken.rate * OVERLOAD;
        println!("overload: {} requests a second", number(overload));
        let step = self.step(overload, length * OVERLOAD_STEPS).await?;
        println!("  answers: {}", step.answers.outcomes());
        let mut faults = Vec::new();
        let unshed = step.answers.failed();
        if unshed > 0 {
            faults.push(format!("{unshed} requests failed otherwise than by 503 or 429"));
        }
        if let Some((api, workers)) = step.memory
            && api.max(workers) > MOST_MEMORY
        {
            faults.push("memory is not bounded".to_owned());
        }

        println!("calm: {} requests a second", number(broken.rate * CALM));
        let begun = Instant::now();
        let mut recovered = false;
        for _ in 0..CALM_STEPS {
            let step = self.step(broken.rate * CALM, length).await?;
            if step.is_well() {
                recovered = true;
                break;
            }
        }
        if recovered {
            println!("  recovered: well again within {:.0} s", begun.elapsed().as_secs_f64());
        } else {
            faults.push("the system did not recover".to_owned());
        }
        if let Some(url) = self.system.database_url() {
            let db = pool(url).await?;
            let complete = check_history(&db, &self.mix.promised()).await?;
            println!(
                "history: {} versions of {} orders, each with exactly one row",
                complete.versions, complete.orders
            );
        }
        ensure!(faults.is_empty(), "{}", faults.join("; "));
        Ok(())
    }

    async fn step(&self, rate: f64, length: Duration) -> anyhow::Result<Step> {
        let tally = Arc::new(Tally::new());
        let shape =
            Shape { address: self.address.clone(), rate, duration: length, connections: self.connections };
        let begun = Instant::now();
        let load = load::show(&shape, &self.mix, &tally);
        tokio::pin!(load);
        let mut memory = self.system.resident()?;
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = &mut load => break,
                _ = ticks.tick() => {
                    if let (Some(most), Some(now)) = (&mut memory, self.system.resident()?) {
                        *most = (most.0.max(now.0), most.1.max(now.1));
                    }
                }
            }
        }
        let step = Step { rate, answers: tally.answers(), took: begun.elapsed(), memory };
        println!("  {}", step.summary());
        Ok(step)
    }
}

impl Step {
    fn p99(&self) -> f64 {
        quantile_ms(&self.answers.all(), 0.99)
    }

    /// What gave, where something did.
    fn gave(&self) -> Option<String> {
        let count = float(self.answers.count().max(1));
        let (shed, failed) = (self.answers.shed(), self.answers.failed());
        if failed > 0 {
            return Some(format!("{failed} requests failed ({})", self.answers.outcomes()));
        }
        if float(shed) / count > 0.01 {
            return Some(format!("the API sheds {:.0} % with 503 or 429", 100.0 * float(shed) / count));
        }
        let p99 = self.p99();
        if p99 > SLOW_MS {
            return Some(format!("latency: every hundredth request takes over {} ms", number(p99)));
        }
        None
    }

    fn is_well(&self) -> bool {
        self.answers.shed() + self.answers.failed() == 0 && self.p99() < WELL_MS
    }

    fn summary(&self) -> String {
        let all = self.answers.all();
        let memory = self.memory.map_or_else(String::new, |(api, workers)| {
            format!(", API {} MiB, workers {} MiB", api >> 20, workers >> 20)
        });
        format!(
            "{}/s asked, {}/s answered, p50 {} ms, p99 {} ms, {} shed, {} failed{memory}",
            number(self.rate),
            number(float(self.answers.count()) / self.took.as_secs_f64()),
            number(quantile_ms(&all, 0.5)),
            number(quantile_ms(&all, 0.99)),
            self.answers.shed(),
            self.answers.failed()
        )
    }
}

/// As many open files as this user may have: a connection is one, here and in the API that is started from here.
fn more_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        bail!("cannot raise the limit of open files: {error}");
    }
    Ok(())
}
