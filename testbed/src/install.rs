//! Finding a server's binary on this machine, and installing its package where it is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::geteuid;
use tokio::sync::Mutex;

use crate::paths;
use crate::process::Launch;

/// A server program and where it comes from.
#[derive(Debug)]
pub struct Package {
    /// What people call it.
    pub title: &'static str,
    /// The program looked for.
    pub binary: &'static str,
    /// Folders besides those of `PATH` to look in; a `*` stands for one folder of any name.
    pub folders: &'static [&'static str],
    /// The lowest major version that does.
    pub least: u32,
    /// What Debian and Ubuntu call it.
    pub apt: &'static str,
    /// What Homebrew calls it.
    pub brew: &'static str,
    /// What to set in order to use a server that runs already.
    pub variable: &'static str,
}

/// One installation at a time: package managers hold a lock.
static INSTALLING: Mutex<()> = Mutex::const_new(());

impl Package {
    /// The path of the binary. Installs the package, and says so, where there is none.
    pub async fn binary(&self) -> anyhow::Result<PathBuf> {
        if let Some(found) = self.find() {
            return Ok(found);
        }
        let _one_at_a_time = INSTALLING.lock().await;
        self.install().await?;
        self.find().with_context(|| {
            format!(
                "{} {} or newer is needed, and the package that was installed has an older one or no `{}`: install a \
                 newer one, or set {} to a server that runs",
                self.title, self.least, self.binary, self.variable
            )
        })
    }

    /// The newest suitable binary on this machine.
    pub fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|folder| folder.join(self.binary));
        let in_folders =
            self.folders.iter().flat_map(|folder| expand(folder)).map(|folder| folder.join(self.binary));
        let versions = in_folders.chain(on_path).filter(|file| file.is_file()).filter_map(|file| {
            let version = if self.least == 0 { 0 } else { major_version(&file)? };
            (version >= self.least).then_some((version, file))
        });
        // The first of the highest version: a known folder rather than `PATH`, which may hold a wrapper of it.
        versions.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, file)| file)
    }

    async fn install(&self) -> anyhow::Result<()> {
        let root = geteuid().is_root();
        let log = paths::data().join("logs/install.log");
        let steps: Vec<Vec<&str>> = if exists("apt-get") && (root || exists("sudo")) {
            vec![vec!["apt-get", "update", "-q"], vec!["apt-get", "install", "-y", "-q", self.apt]]
        } else if exists("brew") && !root {
            vec![vec!["brew", "install", self.brew]]
        } else {
            bail!(
                "{} is not installed, and there is neither apt-get nor brew to install it with: install {} {} or \
                 newer, or set {} to a server that runs",
                self.title,
                self.title,
                self.least,
                self.variable
            );
        };
        for step in steps {
            let apt = step[0] == "apt-get";
            let command = if apt && !root { [vec!["sudo"], step].concat() } else { step };
            println!("  {} is missing, installing it: {}", self.title, command.join(" "));
            // RUNLEVEL=1 keeps Debian's packages from starting a server of their own.
            let launch = Launch::new(command[0], &log)
                .args(&command[1..])
                .env("DEBIAN_FRONTEND", "noninteractive")
                .env("RUNLEVEL", "1");
            launch
                .run()
                .await
                .with_context(|| format!("{} could not be installed (see {})", self.title, log.display()))?;
        }
        Ok(())
    }
}

/// Whether a program is on the `PATH`.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The folders that a pattern with at most one `*` means.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once("*/") else { return vec![pattern.into()] };
    let Ok(entries) = std::fs::read_dir(before) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path().join(after)).collect()
}

/// The first number in what `--version` says, as in `postgres (PostgreSQL) 15.9` or `Redis server v=7.0.15 sha=0`.
fn major_version(binary: &Path) -> Option<u32> {
    let output = Command::new(binary).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split(|letter: char| !letter.is_ascii_digit()).find(|part| !part.is_empty())?;
    number.parse().ok()
}
