//! `cargo xtask load`: open-loop load of a realistic mix on a running system, and whether its history is complete.

mod check;
mod connection;
mod generator;
mod mix;
mod tally;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use check::history as check_history;
pub(crate) use generator::{Shape, generate};
pub(crate) use mix::{Creates, Mix, order};
pub(crate) use tally::{Answers, Tally};

use crate::arguments::LoadArgs;
use crate::report::number;
use crate::servers::pool;
use crate::stats::{Latencies, float, quantile_ms};
use crate::system::System;

/// Between two updates of what is shown.
const SHOW: Duration = Duration::from_millis(500);

/// Runs the load, shows it, and checks the history.
pub async fn run_load(arguments: LoadArgs) -> anyhow::Result<()> {
    let system = System::find_or_start(&arguments.place).await?;
    let tokens = system.tokens().await?;
    let (mix, tally) = (Arc::new(Mix::new(&tokens)), Arc::new(Tally::new()));
    let shape = Shape {
        address: address(&system.url)?,
        rate: arguments.rate,
        duration: arguments.duration,
        connections: arguments.connections,
    };
    println!("{} requests a second for {:?} to {}", number(shape.rate), shape.duration, system.url);
    show(&shape, &mix, &tally).await;

    let answers = tally.answers();
    println!("{}", table(&answers));
    println!("answers: {}", answers.outcomes());
    let checked = async {
        let Some(database) = system.database_url() else {
            println!("the history was not checked: say --database-url");
            return Ok(());
        };
        let db = pool(database).await?;
        let complete = check_history(&db, &mix.promised()).await?;
        println!(
            "history: {} versions of {} orders, each with exactly one row, {} ms after the last answer",
            complete.versions,
            complete.orders,
            number(complete.after.as_secs_f64() * 1000.0)
        );
        anyhow::Ok(())
    };
    let checked = checked.await;
    system.stop().await?;
    checked?;
    ensure!(
        answers.failed() + answers.refused() == 0,
        "{} requests failed and {} were refused",
        answers.failed(),
        answers.refused()
    );
    Ok(())
}

/// Generates load and shows how it goes.
pub(crate) async fn show(shape: &Shape, mix: &Arc<Mix>, tally: &Arc<Tally>) {
    let bar = ProgressBar::new(shape.duration.as_secs());
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:20}] {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let begun = std::time::Instant::now();
    let load = generate(shape, mix, tally);
    tokio::pin!(load);
    let mut ticks = tokio::time::interval(SHOW);
    let mut before = tally.answers().count();
    loop {
        tokio::select! {
            () = &mut load => break,
            _ = ticks.tick() => {
                let (answers, recent) = (tally.answers(), tally.take_recent());
                bar.set_position(begun.elapsed().as_secs().min(shape.duration.as_secs()));
                bar.set_message(live(&answers, answers.count() - before, &recent, tally.waiting()));
                before = answers.count();
            }
        }
    }
    bar.finish_and_clear();
}

fn live(answers: &Answers, new: u64, recent: &Latencies, waiting: u64) -> String {
    format!(
        "{}/s  p50 {} p99 {} max {} ms  errors {}  shed {}  waiting {waiting}",
        number(float(new) / SHOW.as_secs_f64()),
        number(quantile_ms(recent, 0.5)),
        number(quantile_ms(recent, 0.99)),
        number(quantile_ms(recent, 1.0)),
        answers.failed() + answers.refused(),
        answers.shed()
    )
}

/// Latencies by kind of request.
pub(crate) fn table(answers: &Answers) -> String {
    let mut text =
        format!("{:8} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "ms", "count", "p50", "p99", "p99.9", "max");
    let all = answers.all();
    let rows = answers.latency.iter().map(|(kind, latency)| (*kind, latency)).chain([("all", &all)]);
    for (kind, latency) in rows {
        let at = |share| number(quantile_ms(latency, share));
        let _infallible = writeln!(
            text,
            "{kind:8} {:>9} {:>9} {:>9} {:>9} {:>9}",
            latency.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
    text
}

/// `host:port` of an `http://` address.
pub(crate) fn address(url: &str) -> anyhow::Result<String> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not an http:// address"))?;
    let host = rest.split('/').next().unwrap_or(rest);
    Ok(if host.contains(':') { host.to_owned() } else { format!("{host}:80") })
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_without_a_port_is_on_port_80() {
        assert_eq!(address("http://localhost:8000/").unwrap(), "localhost:8000");
        assert_eq!(address("http://shop.example").unwrap(), "shop.example:80");
        assert!(address("https://shop.example").is_err());
    }
}
