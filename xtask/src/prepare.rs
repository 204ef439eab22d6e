//! `cargo xtask prepare`.

use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use testbed::native::Storage;
use testbed::{paths, source};

use crate::say::say;
use crate::signals::Signals;
use crate::{cargo, settings};

pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = prepare() => done,
        () = signals.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn prepare() -> anyhow::Result<ExitCode> {
    let given = settings::given("DATABASE_URL");
    let server = source::postgres(given.as_deref(), &Storage::Throwaway).await?;
    let database = testbed::migrated_database(server.url()).await?;

    // The macros of sqlx write what they learn from a live database into this folder. Only a complete set takes the
    // place of the old one.
    let fresh = paths::data().join("sqlx");
    let _absent = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let workspace = paths::workspace();
    for package in ["shared", "api", "worker", "testbed", "xtask", "bench", "e2e"] {
        touch(&workspace.join(package))?;
    }
    let check = cargo::command(&["check", "--workspace", "--all-targets"])
        .env("SQLX_OFFLINE", "false")
        .env("DATABASE_URL", database.url())
        .env("SQLX_OFFLINE_DIR", &fresh);
    let status = cargo::run(&check).await?;
    ensure!(
        status.success(),
        "the workspace does not compile against the migrated database; .sqlx is as it was"
    );

    let kept = workspace.join(".sqlx");
    let _absent = fs::remove_dir_all(&kept);
    fs::rename(&fresh, &kept).with_context(|| format!("cannot replace {}", kept.display()))?;
    say(format!("{} queries are in .sqlx: commit it.", fs::read_dir(&kept)?.count()));
    drop(database);
    server.stop().await?;
    Ok(ExitCode::SUCCESS)
}

/// Has cargo compile every source file below this folder again, as the macros run only then.
#[expect(clippy::disallowed_methods, reason = "the time of a file is compared with other files' alone")]
fn touch(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            touch(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            File::options().write(true).open(&path)?.set_modified(SystemTime::now())?;
        }
    }
    Ok(())
}
