//! The reference: pgbench, PostgreSQL's own load generator, running what is usually done on the same tables.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use testbed::install::PGBENCH;
use tokio::process::Command;

use crate::stats::{Latencies, latencies};

/// The installed program.
#[derive(Debug)]
pub struct Pgbench {
    binary: PathBuf,
    folder: PathBuf,
}

/// For how long a script is repeated.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// So many seconds.
    Seconds(u32),
    /// So many times by each client.
    Times(u64),
}

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// Transactions a second.
    pub rate: f64,
    /// How long each took.
    pub latency: Latencies,
}

impl Pgbench {
    /// Finds or installs it. `folder` is for its scripts and logs.
    pub async fn find(folder: &Path) -> anyhow::Result<Self> {
        let binary = PGBENCH.binary().await.context("the reference pgbench is needed")?;
        let folder = folder.join("pgbench");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { binary, folder })
    }

    /// Repeats `script` by this many clients with prepared statements.
    pub async fn run(
        &self,
        database: &str,
        script: &str,
        clients: u32,
        length: Length,
    ) -> anyhow::Result<Run> {
        self.clear()?;
        let file = self.folder.join("script.sql");
        tokio::fs::write(&file, script).await?;
        let length = match length {
            Length::Seconds(seconds) => ["-T".to_owned(), seconds.to_string()],
            Length::Times(times) => ["-t".to_owned(), times.to_string()],
        };
        let output = Command::new(&self.binary)
            .args(["-n", "-M", "prepared", "-c", &clients.to_string(), "-j", &clients.min(2).to_string()])
            .args(length)
            // A counter for scripts: variables of a client live from one transaction to the next.
            .args(["-D", "at=0"])
            .arg("-f")
            .arg(&file)
            .arg("-l")
            .arg("--log-prefix")
            .arg(self.folder.join("log"))
            .arg(database)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start pgbench")?;
        let (text, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench failed: {}", errors.trim());
        let rate = rate(&text).with_context(|| format!("pgbench printed no rate: {text}{errors}"))?;
        Ok(Run { rate, latency: self.latency()? })
    }

    /// Runs a `COPY … TO STDOUT` by psql, which stands beside pgbench, and drops what it writes.
    pub async fn copy(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let output = Command::new(self.binary.with_file_name("psql"))
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", sql])
            .arg(database)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start psql")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql failed: {}", errors.trim());
        Ok(())
    }

    /// From the logs, one line for each transaction: client, number, latency in microseconds, and so on.
    fn latency(&self) -> anyhow::Result<Latencies> {
        let mut histogram = latencies();
        for log in self.logs()? {
            for line in std::fs::read_to_string(&log)?.lines() {
                if let Some(micros) = line.split(' ').nth(2).and_then(|text| text.parse().ok()) {
                    histogram.saturating_record(micros);
                }
            }
        }
        Ok(histogram)
    }

    fn clear(&self) -> anyhow::Result<()> {
        for log in self.logs()? {
            std::fs::remove_file(log)?;
        }
        Ok(())
    }

    fn logs(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("log.") {
                logs.push(entry.path());
            }
        }
        Ok(logs)
    }
}

/// A JSON text as an SQL literal. pgbench takes `:name` for a variable, also within a literal, so a colon before a word
/// gets a space, which JSON allows.
pub fn literal(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 2);
    text.push('\'');
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        text.push(letter);
        match letter {
            '\'' => text.push('\''),
            ':' if letters.peek().is_some_and(|next| next.is_alphabetic() || *next == '_') => text.push(' '),
            _ => {}
        }
    }
    text.push('\'');
    text
}

/// From a line such as `tps = 2100.5 (without initial connection time)`.
fn rate(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{literal, rate};

    #[test]
    fn json_in_a_script_holds_nothing_that_pgbench_takes_for_a_variable() {
        assert_eq!(literal(r#"{"a":null,"b":1,"c":"it's"}"#), r#"'{"a": null,"b":1,"c":"it''s"}'"#);
    }

    #[test]
    fn the_rate_is_read_from_what_pgbench_prints() {
        let text =
            "number of failed transactions: 0 (0.000%)\ntps = 2100.5 (without initial connection time)\n";
        assert_eq!(rate(text), Some(2100.5));
        assert_eq!(rate("pgbench: error"), None);
    }
}
