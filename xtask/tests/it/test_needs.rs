//! `test` on machines that lack something.

use std::fs;
use std::os::unix::fs::symlink;

use crate::tool::Workspace;

/// The tests of two packages, with the features of the whole workspace.
const TARGETS: &str = "--workspace --lib --test e2e_it --test api_it --bin api";
/// Records its arguments, in the folder in which it is called.
const NOTING_CARGO: &str = r#"echo "$*" >> calls"#;

#[tokio::test]
async fn everything_that_is_missing_and_cannot_be_installed_is_named_before_anything_is_built() {
    let workspace = Workspace::new();
    let cargo = workspace.script("cargo", NOTING_CARGO);
    // A shell, and neither apt-get nor brew.
    let programs = workspace.path("bin");
    fs::create_dir(&programs).unwrap();
    symlink("/bin/sh", programs.join("sh")).unwrap();
    let path = [("PATH", programs.to_str().unwrap())];
    let (status, log) = workspace.launch_with(&cargo, &["test"], &path).wait().await;
    assert_eq!(status.code(), Some(1), "{log}");
    for line in [
        "  - Redis 7 or newer, or REDIS_URL set to a server that runs",
        "  - curl",
        "  - wrk",
        "  - Python 3.11, 3.12 or 3.13 with venv",
    ] {
        assert!(log.lines().any(|said| said == line), "{line:?} is in:\n{log}");
    }
    assert!(log.contains("cargo xtask test --without-python"), "{log}");
    assert!(!workspace.path("calls").exists(), "nothing was built");
}

#[tokio::test]
async fn chosen_tests_alone_are_built_and_what_is_left_out_without_python_is_said_first_and_last() {
    let workspace = Workspace::new();
    let cargo = workspace.script("cargo", NOTING_CARGO);
    let servers = ["DATABASE_URL", "REDIS_URL", "TESTBED_AMQP_URL", "TESTBED_AMQP_MANAGEMENT_URL"]
        .map(|name| (name, testbed::setting(name).expect("the tests have servers")));
    let servers = servers.each_ref().map(|(name, url)| (*name, url.as_str()));
    let test = workspace.launch_with(
        &cargo,
        &["test", "--without-python", "--package", "e2e", "--package", "api", "orders", "outbox"],
        &servers,
    );
    let (status, log) = test.wait().await;
    assert!(status.success(), "{log}");
    let lines: Vec<&str> = log.lines().collect();
    for line in [lines.first(), lines.last()] {
        assert!(line.unwrap().starts_with("WARNING: SQS and the API's document are NOT TESTED"), "{log}");
    }
    let calls = fs::read_to_string(workspace.path("calls")).unwrap();
    assert_eq!(
        calls,
        format!(
            "nextest --version\nbuild --bin api --bin worker\nnextest run --no-run {TARGETS}\n\
             nextest run {TARGETS} orders outbox --filterset (package(e2e) | package(api)) & \
             not test(/sqs|schemathesis|generated_clients/)\n"
        )
    );
}
