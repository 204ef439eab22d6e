//! The closed-loop load generator: wrk, as an existing and very cheap one, so that it takes little from what it measures.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use testbed::install::WRK;
use tokio::process::Command;

use crate::stats::{Latencies, float, latencies};

/// Connections of every case, as the targets say.
pub const CONNECTIONS: u32 = 64;

const SCRIPT: &str = include_str!("wrk.lua");

/// The installed program.
#[derive(Debug)]
pub struct Wrk {
    binary: PathBuf,
    script: PathBuf,
}

/// The requests of a run, in the order in which they are sent.
#[derive(Debug, Default)]
pub struct Requests {
    text: String,
    tokens: usize,
}

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// Answers a second.
    pub rate: f64,
    /// How many answers there were.
    pub requests: u64,
    /// How long each took.
    pub latency: Latencies,
}

impl Requests {
    /// Adds a token and returns its number.
    pub fn token(&mut self, jwt: &str) -> usize {
        self.tokens += 1;
        let _infallible = writeln!(self.text, "token {} {jwt}", self.tokens);
        self.tokens
    }

    /// Adds a request.
    pub fn send(&mut self, method: &str, path: &str, token: usize, body: &str) {
        let _infallible = writeln!(self.text, "send {method} {path} {token} {body}");
    }
}

impl Wrk {
    /// Finds or installs it. `folder` is for its script.
    pub async fn find(folder: &Path) -> anyhow::Result<Self> {
        let binary = WRK.binary().await.context("the load generator wrk is needed")?;
        let script = folder.join("wrk.lua");
        std::fs::write(&script, SCRIPT)?;
        Ok(Self { binary, script })
    }

    /// Sends `requests` again and again over 64 connections. Fails when any of them fails: it would not be the
    /// case that was meant.
    pub async fn run(&self, url: &str, requests: &Requests, seconds: u32) -> anyhow::Result<Run> {
        let file = self.script.with_file_name("requests");
        tokio::fs::write(&file, &requests.text).await?;
        let output = Command::new(&self.binary)
            // One thread drives more connections than two cores can answer.
            .args([
                "-t",
                "1",
                "-c",
                &CONNECTIONS.to_string(),
                "-d",
                &format!("{seconds}s"),
                "--timeout",
                "10s",
            ])
            .arg("-s")
            .arg(&self.script)
            .arg(url)
            .arg("--")
            .arg(&file)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "wrk failed: {}", format!("{text}{errors}").trim());
        parse(&text)
    }
}

fn parse(text: &str) -> anyhow::Result<Run> {
    let mut latency = latencies();
    let mut run = None;
    for line in text.lines().filter_map(|line| line.strip_prefix("BENCH ")) {
        let (kind, numbers) = line.split_once(' ').context("wrk's script printed half a line")?;
        let numbers: Vec<u64> =
            numbers.split(' ').map(str::parse).collect::<Result<_, _>>().with_context(|| line.to_owned())?;
        match (kind, numbers.as_slice()) {
            ("run", &[requests, micros]) => run = Some((requests, micros)),
            ("errors", &[connect, read, write, status, timeout]) => {
                if numbers.iter().any(|count| *count > 0) {
                    bail!(
                        "requests failed: {connect} to connect, {read} to read, {write} to write, {timeout} in time, \
                         {status} with an error status"
                    );
                }
            }
            ("latency", &[micros, count]) => latency.saturating_record_n(micros, count),
            _ => bail!("wrk's script printed {line:?}"),
        }
    }
    let (requests, micros) = run.context("wrk's script printed no result")?;
    ensure!(requests > 0, "nothing was answered");
    Ok(Run { rate: float(requests) * 1e6 / float(micros), requests, latency })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_run_is_read_with_each_of_its_latencies() {
        let run = parse(
            "noise\nBENCH run 3 2000000\nBENCH errors 0 0 0 0 0\nBENCH latency 100 2\nBENCH latency 900 1\n",
        )
        .unwrap();
        assert_eq!((run.requests, run.latency.len()), (3, 3));
        assert!((run.rate - 1.5).abs() < 1e-9);
        assert_eq!(run.latency.max(), 900);
    }

    #[test]
    fn a_run_with_a_failed_request_is_no_measurement() {
        let error = parse("BENCH run 3 2000000\nBENCH errors 0 0 0 1 0\n").unwrap_err();
        assert!(error.to_string().contains("1 with an error status"), "{error}");
    }
}
