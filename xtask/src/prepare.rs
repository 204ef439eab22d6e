//! `cargo xtask prepare`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use testbed::native::Storage;
use testbed::{paths, source};

use crate::signals::Signals;
use crate::status::print_status;
use crate::{cargo, settings};

/// The packages with queries that are checked at compile time. They are compiled as by `cargo xtask up`, so that neither
/// command rebuilds what the other built. Tests use queries that are checked at run time.
const PACKAGES: [&str; 3] = ["shared", "api", "worker"];

/// Options of `prepare`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if `.sqlx` is not what it would be
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run_prepare(args: Args) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = renew_queries(args) => done,
        () = signals.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn renew_queries(args: Args) -> anyhow::Result<ExitCode> {
    let given = settings::foreign_server("DATABASE_URL");
    let server = source::postgres(given.as_deref(), &Storage::Throwaway).await?;
    // Which columns can be null, sqlx reads from plans.
    let database = testbed::bare_database(server.url()).await?;

    // The macros of sqlx write what they learn from a live database into this folder. Only a complete set takes the
    // place of the old one.
    let fresh = paths::data().join("sqlx");
    let _absent = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let workspace = paths::workspace();
    for package in PACKAGES {
        touch(&workspace.join(package).join("src/lib.rs"))?;
    }
    let build = cargo::in_workspace(&["build", "--bin", "api", "--bin", "worker"])
        .env("SQLX_OFFLINE", "false")
        .env("DATABASE_URL", database.url())
        .env("SQLX_OFFLINE_DIR", &fresh);
    let status = cargo::run_command(&build).await?;
    drop(database);
    server.stop().await?;
    ensure!(
        status.success(),
        "the programs do not compile against the migrated database, see above; .sqlx is as it was"
    );

    let kept = workspace.join(".sqlx");
    if args.check {
        ensure!(
            read_folder(&fresh)? == read_folder(&kept)?,
            ".sqlx is not fresh: run `cargo xtask prepare` and commit it"
        );
        print_status(".sqlx is fresh.");
        return Ok(ExitCode::SUCCESS);
    }
    let _absent = fs::remove_dir_all(&kept);
    fs::rename(&fresh, &kept).with_context(|| format!("cannot replace {}", kept.display()))?;
    print_status(format!("{} queries are in .sqlx: commit it.", fs::read_dir(&kept)?.count()));
    Ok(ExitCode::SUCCESS)
}

/// Has cargo compile a package again, as the macros run only then.
#[expect(clippy::disallowed_methods, reason = "the time of a file is compared with other files' alone")]
fn touch(file: &Path) -> anyhow::Result<()> {
    let open = File::options().write(true).open(file);
    let open = open.with_context(|| format!("cannot open {}", file.display()))?;
    Ok(open.set_modified(SystemTime::now())?)
}

fn read_folder(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries
        .map(|entry| {
            let path = entry?.path();
            let name = path.file_name().map(PathBuf::from).context("a file has a name")?;
            Ok((name, fs::read(&path)?))
        })
        .collect()
}
