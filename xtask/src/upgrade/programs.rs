//! The programs of both versions. Those of an old revision are kept in `target/upgrade/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use testbed::paths;

use super::Args;
use crate::cargo;
use crate::status::print_status;

/// `api` and `worker` of one version.
#[derive(Debug)]
pub(super) struct Programs {
    /// What the version is called on the terminal.
    pub(super) title: String,
    /// What it is called in names of files.
    pub(super) name: &'static str,
    folder: PathBuf,
}

impl Programs {
    fn in_folder(title: &str, name: &'static str, folder: &Path) -> anyhow::Result<Self> {
        for program in ["api", "worker"] {
            let path = folder.join(program);
            ensure!(path.is_file(), "{} is missing", path.display());
        }
        // The programs start in a folder of their own.
        Ok(Self { title: title.to_owned(), name, folder: folder.canonicalize()? })
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }
}

/// What this command writes.
pub(super) fn folder() -> PathBuf {
    target().join("upgrade")
}

/// Builds the old programs and today's.
pub(super) async fn prepare(args: &Args) -> anyhow::Result<(Programs, Programs)> {
    let old = if let Some(folder) = &args.programs {
        Programs::in_folder(&folder.display().to_string(), "old", folder)?
    } else {
        let revision = args.revision.as_deref().context("no revision")?;
        build_revision(revision, &args.profile).await?
    };
    print_status("Building today's programs");
    build(&paths::workspace(), &target(), &args.profile).await?;
    let today = Programs::in_folder("today's", "today", &built(&target(), &args.profile))?;
    Ok((old, today))
}

/// Builds a revision in a worktree of git and puts its programs aside, unless that was done before.
async fn build_revision(revision: &str, profile: &str) -> anyhow::Result<Programs> {
    let commit = run_git(&["rev-parse", "--verify", "--end-of-options", &format!("{revision}^{{commit}}")])?;
    let kept = folder().join(&commit).join(profile);
    if let Ok(programs) = Programs::in_folder(revision, "old", &kept) {
        print_status(format!("The programs of {revision} are those built before, in {}", kept.display()));
        return Ok(programs);
    }
    print_status(format!("Building the programs of {revision}"));
    let source = folder().join(&commit).join("source");
    let path = source.to_str().context("the path of the target folder is not text")?;
    // What an earlier run left behind when it was stopped.
    let _absent = run_git(&["worktree", "remove", "--force", path]);
    run_git(&["worktree", "add", "--force", "--detach", path, &commit])?;
    // Not in today's target folder: to cargo both are the same packages, and what is older than the last build is up to date,
    // so it would take the old programs for today's. The files of a new worktree are newer than all that was built before.
    let target = folder().join("target");
    share_dependencies(&built(&self::target(), profile), &built(&target, profile))?;
    let compiled = build(&source, &target, profile).await;
    let copied = compiled.and_then(|()| copy_programs(&built(&target, profile), &kept));
    let _best_effort = run_git(&["worktree", "remove", "--force", path]);
    copied?;
    Programs::in_folder(revision, "old", &kept)
}

/// Fills a new target folder with the libraries of another one, so that only what has another version or other features is
/// compiled. What belongs to the workspace itself is older than the files of a new worktree, and is compiled again.
fn share_dependencies(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() || !from.join("deps").is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to.join("deps"))?;
    // Their files are written anew in place, so they are copied. Libraries are replaced by others, so a link does.
    for part in [".fingerprint", "build"] {
        let copied =
            Command::new("cp").arg("-Rp").arg(from.join(part)).arg(to).status().context("cannot run cp")?;
        ensure!(copied.success(), "{} cannot be copied", from.join(part).display());
    }
    for file in fs::read_dir(from.join("deps"))? {
        let file = file?.path();
        let is_library = file
            .extension()
            .is_some_and(|end| ["rlib", "rmeta", "so", "dylib"].iter().any(|known| end == *known));
        if let (true, Some(name)) = (is_library, file.file_name()) {
            fs::hard_link(&file, to.join("deps").join(name))?;
        }
    }
    Ok(())
}

fn copy_programs(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for program in ["api", "worker"] {
        let copy = to.join(program);
        fs::copy(from.join(program), &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(())
}

async fn build(workspace: &Path, target: &Path, profile: &str) -> anyhow::Result<()> {
    let command = cargo::in_workspace(&["build", "--bin", "api", "--bin", "worker", "--profile", profile])
        .folder(workspace)
        .arg("--target-dir")
        .arg(target);
    ensure!(
        cargo::run_command(&command).await?.success(),
        "the programs in {} do not compile, see above",
        workspace.display()
    );
    Ok(())
}

/// Where cargo puts what it builds.
fn built(target: &Path, profile: &str) -> PathBuf {
    target.join(if profile == "dev" { "debug" } else { profile })
}

/// The target folder that this program was built in.
fn target() -> PathBuf {
    let mine = paths::binaries().unwrap_or_default();
    mine.parent().map_or_else(|| paths::workspace().join("target"), Path::to_path_buf)
}

fn run_git(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").args(args).current_dir(paths::workspace()).output();
    let output = output.context("cannot run git")?;
    let failed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {} failed: {}", args[0], failed.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
