//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum as _};

use crate::arguments::{BenchArgs, Case, Choice, LoadArgs, StressArgs};
use crate::{bare, bench, load, scale, stress};

/// Measures the order system.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure cases against their references, and write target/bench/report.html and report.json
    Bench(BenchArgs),
    /// Put open-loop load of a realistic mix on a system, and check its history
    Load(LoadArgs),
    /// Raise the load until something fails, and see that the system sheds the rest and recovers
    Stress(StressArgs),
    /// The reference of `get`
    #[command(hide = true)]
    Bare {
        /// Where to listen
        #[arg(long)]
        port: u16,
        /// A file with the headers and the body to answer
        #[arg(long)]
        answer: PathBuf,
    },
    /// A process of `bench scale`
    #[command(hide = true, subcommand)]
    ScalePart(ScalePart),
}

#[derive(Debug, Subcommand)]
enum ScalePart {
    /// Fill the queue
    Publish {
        /// How many
        events: i64,
    },
    /// Be a worker with slow handlers
    Consume,
}

/// Does what was asked.
pub async fn run_command(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Bench(arguments) => {
            let cases = cases(&arguments.cases);
            let measured = if cases.is_empty() {
                Ok(())
            } else {
                bench::run_bench(&cases, arguments.quick, arguments.report).await
            };
            // Whether or not a case failed: it is another measurement.
            if arguments.cases.contains(&Choice::Scale) {
                scale::compare_workers(arguments.quick).await?;
            }
            measured
        }
        Command::Load(arguments) => load::run_load(arguments).await,
        Command::Stress(arguments) => stress::run_stress(arguments).await,
        Command::ScalePart(ScalePart::Publish { events }) => scale::part::publish(events).await,
        Command::ScalePart(ScalePart::Consume) => scale::part::consume().await,
        Command::Bare { port, answer } => bare::serve(port, &answer).await,
    }
}

/// What `ha` asks for, and nothing else does.
const HA: [Case; 4] = [Case::GetSentinel, Case::GetCluster, Case::ConsumeSentinel, Case::ConsumeCluster];

/// In the order of the table, each once.
fn cases(choices: &[Choice]) -> Vec<Case> {
    let all = choices.is_empty() || choices.contains(&Choice::All);
    let wanted = |case: &Case| {
        let is_chosen = if HA.contains(case) { choices.contains(&Choice::Ha) } else { all };
        is_chosen || choices.contains(&Choice::One(*case))
    };
    Case::value_variants().iter().copied().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Case, Choice, Cli, cases};

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn cases_run_once_each_and_in_the_order_of_the_table() {
        let asked = [Choice::One(Case::Get), Choice::One(Case::Create), Choice::One(Case::Get)];
        assert_eq!(cases(&asked), [Case::Create, Case::Get]);
        assert_eq!(cases(&[]).len(), 13);
        assert_eq!(cases(&[Choice::Scale]), []);
        assert_eq!(cases(&[Choice::Ha]).len(), 4);
        assert_eq!(cases(&[Choice::One(Case::Get), Choice::All]).len(), 13);
    }
}
