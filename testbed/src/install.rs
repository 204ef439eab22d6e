//! Finding what a command needs on this machine, and installing the packages of what is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::geteuid;
use tokio::sync::Mutex;

use crate::paths;
use crate::process::Launch;

/// A program and where it comes from.
#[derive(Debug)]
pub struct Package {
    /// What people call it.
    pub title: &'static str,
    /// The program looked for.
    pub binary: &'static str,
    /// Folders besides those of `PATH` to look in; a `*` stands for one folder of any name.
    pub folders: &'static [&'static str],
    /// The lowest major version that does; 0 if any does.
    pub least: u32,
    /// What Debian and Ubuntu call it.
    pub apt: &'static str,
    /// What Homebrew calls it.
    pub brew: &'static str,
    /// What to set in order to use a server that runs already; `PATH` for a program that is no server.
    pub variable: &'static str,
}

/// Something that a command needs on this machine.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// A program.
    Program(&'a Package),
    /// A Python that can make virtual environments.
    Python,
}

/// What installs packages here.
enum Installer {
    Apt { sudo: bool },
    Brew,
}

/// The load generator of the bench.
pub const WRK: Package = tool("wrk", "wrk", "wrk", "wrk");
/// The reference of the bench, which comes with PostgreSQL.
pub const PGBENCH: Package = Package {
    folders: &[
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql@17/bin",
        "/usr/local/opt/postgresql@17/bin",
    ],
    least: 15,
    ..tool("pgbench", "pgbench", "postgresql", "postgresql@17")
};
/// The reference of the feed.
pub const PSQL: Package = Package { title: "psql", binary: "psql", apt: "postgresql-client", ..PGBENCH };
/// The proxy behind which tests put the API.
pub const NGINX: Package = Package { folders: &["/usr/sbin"], ..tool("nginx", "nginx", "nginx", "nginx") };
/// What the examples of the documentation use.
pub const CURL: Package = tool("curl", "curl", "curl", "curl");
/// What libFuzzer is written in.
pub const CXX: Package = tool("a C++ compiler", "c++", "g++", "gcc");

/// What is needed of Python, for error messages.
pub(crate) const PYTHON_TITLE: &str = "Python 3.11, 3.12 or 3.13 with venv";
/// Its programs. The packages that the `requirements.txt` files pin were tried on these versions.
const PYTHONS: &[&str] = &["python3.11", "python3.12", "python3.13", "python3"];
/// Fails on a Python of another version, or one that cannot make virtual environments.
const PYTHON_CHECK: &str =
    "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))";

/// One installation at a time: package managers hold a lock.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// A program of any version on the `PATH`.
const fn tool(title: &'static str, binary: &'static str, apt: &'static str, brew: &'static str) -> Package {
    Package { title, binary, folders: &[], least: 0, apt, brew, variable: "PATH" }
}

/// A suitable Python on this machine.
pub fn find_python() -> Option<&'static str> {
    PYTHONS.iter().copied().find(|python| exists(python) && runs_python(python.as_ref(), PYTHON_CHECK))
}

/// Whether a Python runs these lines without an error.
pub(crate) fn runs_python(python: &Path, lines: &str) -> bool {
    Command::new(python).args(["-c", lines]).output().is_ok_and(|output| output.status.success())
}

/// Installs everything that is missing of these, and says so. Fails with a list of all that is missing still.
pub async fn provide(needs: &[Need<'_>]) -> anyhow::Result<()> {
    let _one_at_a_time = INSTALLING.lock().await;
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let Some(installer) = Installer::find() else {
        bail!(
            "missing, and only apt-get (as root, or by sudo without a password) or brew could install it:\n{}\nDebian's \
             packages: {}",
            list(&missing),
            Installer::Apt { sudo: true }.packages(&missing).join(" ")
        );
    };
    let log = paths::data().join("logs/install.log");
    let titles: Vec<&str> = missing.iter().map(|need| need.title()).collect();
    for step in installer.steps(&missing) {
        println!("  missing: {}; installing: {}", titles.join(", "), step.join(" "));
        // RUNLEVEL=1 keeps Debian's packages from starting a server of their own.
        let launch = Launch::new(step[0], &log)
            .args(&step[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1");
        launch.run().await.with_context(|| {
            format!("this could not be installed (see {}):\n{}\n", log.display(), list(&missing))
        })?;
    }
    let missing = self::missing(&missing);
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing, also after their packages have been installed:\n{}", list(&missing));
}

fn missing<'a>(needs: &[Need<'a>]) -> Vec<Need<'a>> {
    needs.iter().copied().filter(|need| !need.is_met()).collect()
}

/// A line for each.
fn list(needs: &[Need<'_>]) -> String {
    let lines: Vec<String> = needs.iter().map(|need| format!("  - {}", need.describe())).collect();
    lines.join("\n")
}

impl Need<'_> {
    fn is_met(self) -> bool {
        match self {
            Self::Program(package) => package.find().is_some(),
            Self::Python => find_python().is_some(),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Program(package) => package.title,
            Self::Python => "Python",
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Program(Package { title, least: 0, variable: "PATH", .. }) => (*title).to_owned(),
            Self::Program(Package { title, least, variable: "PATH", .. }) => {
                format!("{title} {least} or newer")
            }
            Self::Program(Package { title, least: 0, variable, .. }) => {
                format!("{title}, or {variable} set to a server that runs")
            }
            Self::Program(Package { title, least, variable, .. }) => {
                format!("{title} {least} or newer, or {variable} set to a server that runs")
            }
            Self::Python => PYTHON_TITLE.to_owned(),
        }
    }
}

impl Installer {
    /// The one that works without asking for a password.
    fn find() -> Option<Self> {
        let root = geteuid().is_root();
        if exists("apt-get") && (root || may_sudo()) {
            Some(Self::Apt { sudo: !root })
        } else if exists("brew") && !root {
            Some(Self::Brew)
        } else {
            None
        }
    }

    fn steps(&self, needs: &[Need<'_>]) -> Vec<Vec<&'static str>> {
        match self {
            Self::Apt { sudo } => vec![apt(*sudo, &["update", "-q"]), self.install(needs)],
            Self::Brew => vec![self.install(needs)],
        }
    }

    fn install(&self, needs: &[Need<'_>]) -> Vec<&'static str> {
        let command = match self {
            Self::Apt { sudo } => apt(*sudo, &["install", "-y", "-q"]),
            Self::Brew => vec!["brew", "install"],
        };
        [command, self.packages(needs)].concat()
    }

    /// Each once.
    fn packages(&self, needs: &[Need<'_>]) -> Vec<&'static str> {
        let name = |need: &Need<'_>| match (self, need) {
            (Self::Apt { .. }, Need::Program(package)) => package.apt,
            (Self::Apt { .. }, Need::Python) => "python3-venv",
            (Self::Brew, Need::Program(package)) => package.brew,
            (Self::Brew, Need::Python) => "python@3.12",
        };
        let mut packages: Vec<&str> = needs.iter().map(name).collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    }
}

fn apt(sudo: bool, arguments: &[&'static str]) -> Vec<&'static str> {
    // Whoever else installs something is waited for.
    let command = ["apt-get", "-o", "DPkg::Lock::Timeout=600"];
    let sudo = if sudo { ["sudo"].as_slice() } else { &[] };
    [sudo, &command, arguments].concat()
}

/// Whether sudo works without a password. It could not be asked for: what is installed runs in the background.
fn may_sudo() -> bool {
    exists("sudo")
        && Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|output| output.status.success())
}

impl Package {
    /// The path of the binary. Installs the package, and says so, if there is none.
    pub async fn binary(&self) -> anyhow::Result<PathBuf> {
        if let Some(found) = self.find() {
            return Ok(found);
        }
        provide(&[Need::Program(self)]).await?;
        self.find().with_context(|| format!("{} is missing", self.title))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_installed_by_one_command() {
        let needs = [Need::Program(&WRK), Need::Python, Need::Program(&CURL), Need::Program(&CURL)];
        let command = Installer::Apt { sudo: true }.install(&needs).join(" ");
        assert_eq!(command, "sudo apt-get -o DPkg::Lock::Timeout=600 install -y -q curl python3-venv wrk");
        assert_eq!(Installer::Brew.install(&needs).join(" "), "brew install curl python@3.12 wrk");
    }
}
