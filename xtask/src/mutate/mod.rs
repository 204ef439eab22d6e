//! `cargo xtask mutate`: takes out what keeps tenants apart, one condition or part of a key at a time, and demands that a test
//! notices each time.
//!
//! It works in a copy of the committed sources with a target folder of its own, so that the checkout stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use testbed::native::Storage;
use testbed::process::Launch;
use testbed::{paths, source};

use crate::status::print_status;
use crate::system::{self, Role, System};
use crate::{cargo, requirements};

mod mutations;
mod report;

use mutations::Mutation;
use report::Report;

/// The exit code of nextest if a test has failed.
const TESTS_FAILED: i32 = 100;
/// The tests that are asked first: what tenants can see of each other, and if that notices nothing the check of the statements' texts.
const FIRST: [&str; 2] =
    ["test(/tenant|isolation|roles/) and not test(/^tenants_queries::/)", "test(/^tenants_queries::/)"];
/// If none of them notices: what else reads or writes rows and keys with nothing but PostgreSQL and Redis.
const REST: &str = "test(/^(accounts|auth_|cache|commands|dead_letters|feed_(cursors|pages)|history|limits|orders_|redrive|verify)|tests::/) \
     and not test(/tenant|isolation|roles|rabbitmq|sqs/)";
/// What the tests print, below the folder of data.
const LOG: &str = "logs/mutate.log";

/// Options of `mutate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the mutations whose file or text contains this
    only: Option<String>,
    /// Print the mutations, and make none
    #[arg(long)]
    list: bool,
    /// Make only those of which docs/notes/mutations.md has no result
    #[arg(long)]
    missing: bool,
    /// Make the first, and then each this many behind it: a sample
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    every: u16,
}

/// What became of a mutation.
enum Verdict {
    /// This test has failed.
    Caught(String),
    /// No test has failed.
    Survived,
    /// It is no program: nothing is shown.
    NotCompiled,
}

pub(crate) async fn run_mutations(args: Args) -> anyhow::Result<ExitCode> {
    let report = Report::load(mutations::find_all(&paths::workspace())?)?;
    let only = args.only.as_deref().unwrap_or_default();
    let chosen: Vec<(usize, Mutation)> = report
        .mutations()
        .enumerate()
        .filter(|(_, (mutation, is_missing))| {
            mutation.to_string().contains(only) && (*is_missing || !args.missing)
        })
        .map(|(index, (mutation, _))| (index, mutation.clone()))
        .step_by(usize::from(args.every))
        .collect();
    ensure!(!chosen.is_empty(), "there is no such mutation: `cargo xtask mutate --list` shows all");
    if args.list {
        for (_, mutation) in &chosen {
            println!("{mutation}");
        }
        println!("{} mutations", chosen.len());
        return Ok(ExitCode::SUCCESS);
    }
    system::with_temporary_servers(async |system| Box::pin(mutate(system, &chosen, report)).await).await
}

async fn mutate(
    system: &System,
    chosen: &[(usize, Mutation)],
    mut report: Report,
) -> anyhow::Result<ExitCode> {
    requirements::install_for_tests(false).await?;
    cargo::install_tool("nextest").await?;
    let storage = &Storage::Throwaway;
    let (postgres, redis) = tokio::try_join!(
        system.start_server(Role::Postgres, "PostgreSQL", source::postgres(None, storage)),
        system.start_server(Role::Redis, "Redis", source::redis(None, storage)),
    )?;
    // The macros of sqlx check changed queries against a database, and the tests make theirs beside it.
    let database = testbed::bare_database(&postgres.url).await?;
    let tree = copy_sources().await?;
    let tests = |filter: &str| {
        Launch::new(cargo::program(), paths::data().join(LOG))
            .folder(&tree)
            .args([
                "nextest",
                "run",
                "--package",
                "shared",
                "--package",
                "api",
                "--package",
                "worker",
                "--lib",
                "--test",
                "api_it",
                "--test",
                "worker_it",
                "--max-fail",
                "1:immediate",
                "-E",
                filter,
            ])
            .env("CARGO_TARGET_DIR", paths::workspace().join("target/mutate"))
            .env("SQLX_OFFLINE", "false")
            .env("DATABASE_URL", database.url())
            .env("REDIS_URL", &redis.url)
            .env("NEXTEST_NO_INPUT_HANDLER", "1")
    };
    print_status("Building and running the tests without a mutation.");
    let require_passing = async |group| {
        let verdict = judge(&tests(group)).await?;
        ensure!(matches!(verdict, Verdict::Survived), "the tests fail without a mutation: see {LOG}");
        anyhow::Ok(())
    };
    for group in FIRST {
        require_passing(group).await?;
    }
    let mut is_rest_passing = false;
    let mut survivors = 0;
    for (number, (index, mutation)) in chosen.iter().enumerate() {
        let original = mutation.apply(&tree)?;
        let mut verdict = Verdict::Survived;
        // The package itself is the most likely to notice.
        let near = format!("package({}) and {}", mutation.package(), FIRST[0]);
        for group in [near.as_str()].into_iter().chain(FIRST) {
            if matches!(verdict, Verdict::Survived) {
                verdict = judge(&tests(group)).await?;
            }
        }
        if matches!(verdict, Verdict::Survived) {
            if !is_rest_passing {
                fs::write(tree.join(&mutation.file), &original)?;
                require_passing(REST).await?;
                is_rest_passing = true;
                mutation.apply(&tree)?;
            }
            verdict = judge(&tests(REST)).await?;
        }
        fs::write(tree.join(&mutation.file), original)?;
        let text = match verdict {
            Verdict::Caught(test) => test,
            Verdict::Survived => {
                survivors += 1;
                "**no test**".to_owned()
            }
            Verdict::NotCompiled => {
                survivors += 1;
                "**does not compile**".to_owned()
            }
        };
        print_status(format!("{} of {}: {mutation}: {text}", number + 1, chosen.len()));
        report.record(*index, &text)?;
    }
    print_status(format!("{} mutations, {survivors} of them unnoticed", chosen.len()));
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs tests until one fails.
async fn judge(tests: &Launch) -> anyhow::Result<Verdict> {
    let log = PathBuf::from(tests.log_file());
    let _absent = fs::remove_file(&log);
    let status = tests.spawn()?.wait().await?;
    let output = fs::read_to_string(&log).unwrap_or_default();
    Ok(match (status.code(), output.lines().find_map(failed_test)) {
        (Some(0), _) => Verdict::Survived,
        (Some(TESTS_FAILED), Some(test)) => Verdict::Caught(test),
        _ => Verdict::NotCompiled,
    })
}

/// The name in a line of nextest such as `FAIL [   0.1s] (1/2) api::api_it tenants::a_test`.
fn failed_test(line: &str) -> Option<String> {
    let line = line.trim();
    let is_failure = ["FAIL", "TIMEOUT", "SIGABRT"].iter().any(|word| line.starts_with(word));
    let name = line.split_whitespace().next_back()?;
    (is_failure && name.contains("::")).then(|| format!("`{name}`"))
}

/// A copy of the committed sources, in the target folder.
async fn copy_sources() -> anyhow::Result<PathBuf> {
    let tree = paths::workspace().join("target/mutate-sources");
    let git = |args: &[&str]| {
        Launch::new("git", paths::data().join("logs/mutate-git.log")).folder(paths::workspace()).args(args)
    };
    let path = tree.to_str().context("the path of the workspace is no text")?;
    let _absent = git(&["worktree", "remove", "--force", path]).run().await;
    git(&["worktree", "add", "--detach", path, "HEAD"])
        .run()
        .await
        .context("the sources cannot be copied")?;
    Ok(tree)
}

/// A path as reports show it.
fn shown_path(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
