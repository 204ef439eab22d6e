//! `cargo xtask bench`: the servers, the tools, and what the cases share.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use tokio::sync::OnceCell;

use crate::arguments::Case;
use crate::dataset;
use crate::pgbench::Pgbench;
use crate::plan::Plan;
use crate::programs::Environment;
use crate::progress::Progress;
use crate::report::{self, Machine, Outcome};
use crate::servers::{Servers, pool};
use crate::wrk::Wrk;

/// A case takes a minute, on a slow machine a few: one that takes this long waits for something that does not come.
const CASE_LIMIT: Duration = Duration::from_mins(20);

/// What a case needs.
#[derive(Debug)]
pub struct Bench {
    /// PostgreSQL and Redis.
    pub servers: Servers,
    /// The load generator.
    pub wrk: Wrk,
    /// The reference.
    pub pgbench: Pgbench,
    /// Sizes and lengths.
    pub plan: Plan,
    /// What is happening.
    pub progress: Progress,
    seeded: OnceCell<Seeded>,
    create_rate: Mutex<Option<f64>>,
}

/// A database with many orders, and a copy of it.
#[derive(Clone, Debug)]
pub struct Seeded {
    /// For the system.
    pub system: String,
    /// For the reference, whose events the system's relay must not publish.
    pub reference: String,
}

/// Measures these cases, prints the table and writes the reports.
pub async fn run_bench(cases: &[Case], quick: bool, report: Option<PathBuf>) -> anyhow::Result<()> {
    let plan = if quick { Plan::quick() } else { Plan::full() };
    if cfg!(debug_assertions) {
        println!("  this is a development build: its figures mean nothing");
    }
    let steps = 2 + cases.iter().map(|case| case.steps(plan.rounds)).sum::<usize>();
    let progress = Progress::new(u64::try_from(steps)?);
    progress.step("starting PostgreSQL and Redis".into());
    let servers = Servers::start().await?;
    let wrk = Wrk::find(servers.folder()).await?;
    let pgbench = Pgbench::find(servers.folder()).await?;
    let machine = Machine::describe(servers.describe().await?);
    let bench = Bench {
        servers,
        wrk,
        pgbench,
        plan,
        progress,
        seeded: OnceCell::new(),
        create_rate: Mutex::new(None),
    };

    let folder = report.unwrap_or_else(report::folder);
    let mut outcomes = Vec::new();
    for case in cases {
        let measured = tokio::time::timeout(CASE_LIMIT, case.measure(&bench)).await;
        let measured = measured.unwrap_or_else(|_| Err(anyhow!("it was not done within {CASE_LIMIT:?}")));
        let outcome = measured.unwrap_or_else(|error| Outcome::failed(case.about(), &error));
        bench.progress.print_line(&format!("  {}", describe(&outcome)));
        for note in &outcome.notes {
            bench.progress.print_line(&format!("    {note}"));
        }
        outcomes.push(outcome);
        // After each case, so that whatever ends this program takes no result with it.
        report::write_reports(&folder, &machine, &outcomes)?;
    }
    bench.progress.finish();
    println!("\n{}\n{}", machine.summary(), report::table(&outcomes));
    println!("Plots and latencies: {}", folder.join("report.html").display());
    bench.servers.stop().await?;
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.row.error.is_some())
        .map(|outcome| outcome.row.case)
        .collect();
    ensure!(failed.is_empty(), "these cases could not be measured: {}", failed.join(", "));
    Ok(())
}

impl Bench {
    /// The database with many orders, which is made when it is first asked for.
    pub async fn seeded(&self) -> anyhow::Result<&Seeded> {
        self.seeded
            .get_or_try_init(|| async {
                self.progress.set_message(format!("seeding {} orders", self.plan.orders));
                let system = self.servers.database("seeded").await?;
                let orders = pool(&system).await?;
                dataset::insert_orders(&orders, self.plan.orders).await?;
                orders.close().await;
                let reference = self.servers.copy("seeded", "seeded_reference").await?;
                Ok(Seeded { system, reference })
            })
            .await
    }

    /// The environment of programs on this database.
    pub fn environment(&self, database_url: &str) -> Environment {
        Environment {
            database_url: database_url.to_owned(),
            redis_url: self.servers.redis_url().to_owned(),
            more: Vec::new(),
        }
    }

    /// Keeps the rate that the `create` case measured.
    pub fn keep_create_rate(&self, rate: Option<f64>) {
        *self.create_rate.lock().unwrap_or_else(PoisonError::into_inner) = rate;
    }

    /// What [`Self::keep_create_rate`] was told, where that case ran before.
    pub fn create_rate(&self) -> Option<f64> {
        *self.create_rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An outcome in one line.
fn describe(outcome: &Outcome) -> String {
    let row = &outcome.row;
    if let Some(error) = &row.error {
        return format!("{}: failed: {error}", row.case);
    }
    let value = row.value.map_or_else(String::new, report::number);
    let against = row.reference.zip(row.ratio).map_or_else(String::new, |(reference, ratio)| {
        format!(" against {}: {ratio:.2}", report::number(reference))
    });
    let met = if row.met { "met" } else { "missed" };
    format!("{}: {value} {}{against} (target {}, {met})", row.case, row.unit, row.target.describe(row.unit))
}
