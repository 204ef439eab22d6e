//! No process outlives the one that started it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use testbed::eventually;
use testbed::native::{self, Storage};
use testbed::process::Launch;

/// Set for the process that the test below kills.
const HOLDER: &str = "TESTBED_HOLDER";

/// What the next test runs as a process of its own: it starts two servers, tells where, and waits to be killed.
#[tokio::test]
#[ignore = "a part of the next test, which runs it in a process of its own"]
async fn holder() {
    if testbed::setting(HOLDER).is_none() {
        return;
    }
    let postgres = native::postgres(&Storage::Throwaway).await.unwrap();
    let redis = native::redis(&Storage::Throwaway).await.unwrap();
    println!("\nurls {} {}", postgres.url(), redis.url());
    tokio::time::sleep(Duration::from_mins(5)).await;
}

#[tokio::test]
async fn servers_end_when_the_process_that_started_them_is_killed() {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "processes::holder", "--nocapture"])
        .env(HOLDER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let line =
        lines.map_while(Result::ok).find(|line| line.starts_with("urls ")).expect("the servers' addresses");
    let ports: Vec<u16> = line
        .split(' ')
        .skip(1)
        .map(|url| url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0.parse().unwrap())
        .collect();
    assert_eq!(ports.len(), 2);
    assert!(ports.iter().all(|port| !testbed::port::is_free(*port)), "both servers listen");

    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("both servers end", async || ports.iter().all(|port| testbed::port::is_free(*port))).await;
}

#[tokio::test]
async fn a_program_that_fails_is_told_of_with_its_last_words() {
    let folder = testbed::paths::temporary("fails").unwrap();
    let launch =
        Launch::new("sh", folder.join("log")).args(["-c", "echo first; echo the reason >&2; exit 3"]);
    let error = launch.run().await.unwrap_err();
    assert_eq!(error.to_string(), "sh failed: the reason");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn stopping_waits_for_the_end() {
    let folder = testbed::paths::temporary("stops").unwrap();
    let log = folder.join("log");
    let script = "trap 'echo stopped; exit 0' TERM; echo started; while :; do sleep 0.01; done";
    let process = Launch::new("sh", &log).args(["-c", script]).spawn().unwrap();
    eventually("it starts", async || process.log().contains("started")).await;
    assert!(process.terminate().await.unwrap().success());
    assert!(std::fs::read_to_string(log).unwrap().contains("stopped"));
    std::fs::remove_dir_all(folder).unwrap();
}
