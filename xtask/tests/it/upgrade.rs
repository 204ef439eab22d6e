//! `upgrade-from`, with the programs of this build in both places: that they replace each other under load. An older version is
//! for the command itself, because it has to be built.

use std::os::unix::fs::symlink;

use testbed::paths;

use crate::tool::Workspace;

#[tokio::test]
async fn replicas_replace_each_other_under_load_and_no_answer_is_lost() {
    let programs = paths::binaries().unwrap();
    let programs = programs.to_str().unwrap();
    let workspace = Workspace::new();
    let tool = workspace.start(&["upgrade-from", "--programs", programs, "--seconds", "1", "--clients", "3"]);
    let (status, log) = tool.wait().await;
    assert!(status.success() && log.contains("and forward again: no fault"), "{log}");
    for stage in ["old system", "forward", "back", "forward again"] {
        // The column of the stages is 14 wide.
        let figures = log.lines().find_map(|line| line.strip_prefix(&format!("{stage:<14} "))).expect(stage);
        let requests = figures.split_whitespace().next().and_then(|count| count.parse::<u32>().ok());
        assert!(requests.is_some_and(|requests| requests > 20), "{stage}: the clients were at work: {log}");
    }
}

#[tokio::test]
async fn an_old_version_whose_cache_today_does_not_know_is_found_by_its_old_reads() {
    let workspace = Workspace::new();
    let programs = paths::binaries().unwrap();
    let other_cache = format!(
        "export EVENTS_REDIS_URL=$REDIS_URL REDIS_URL=${{REDIS_URL%/*}}/1\nexec {} \"$@\"",
        programs.join("api").display()
    );
    workspace.script("api", &other_cache);
    symlink(programs.join("worker"), workspace.path("worker")).unwrap();
    let old = workspace.path("");
    let old = old.to_str().unwrap();
    let tool = workspace.start(&["upgrade-from", "--programs", old, "--seconds", "1", "--clients", "3"]);
    let (status, log) = tool.wait().await;
    // On a machine that is much too busy, the command allows for a Redis that does not answer in time.
    let faults = log.lines().any(|line| line.starts_with("FAULT, ") && line.contains(", then read: "));
    let found = log.contains("GET: an old answer") || faults && !status.success();
    assert!(found, "a read older than an answered write is reported:\n{log}");
}
