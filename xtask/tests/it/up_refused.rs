//! `up` if it cannot start: one clear sentence, exit code 1, and no process left behind.

use std::net::TcpListener;

use testbed::{free_port, port};

use crate::tool::Workspace;

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (status, log) = Workspace::new().start(&["up", "--port", &port.to_string()]).wait().await;
    assert_eq!(status.code(), Some(1));
    let expected = format!(
        "error: port {port} is taken by another program: stop that one, or choose another by --port\n"
    );
    assert_eq!(log, expected);
}

#[tokio::test]
async fn a_failed_build_stops_the_servers() {
    let workspace = Workspace::new();
    let (status, log) = workspace.launch("false", &["up", "--port", &free_port().to_string()]).wait().await;
    assert_eq!(status.code(), Some(1));
    assert!(log.ends_with("error: the API and the worker do not compile, see above\n"), "{log}");
    assert!(workspace.ports().into_iter().all(port::is_free), "no server is left behind");
}

#[tokio::test]
async fn a_server_that_does_not_come_up_is_named_and_the_others_stop() {
    let workspace = Workspace::new();
    let (status, _) = workspace.launch("false", &["up", "--port", &free_port().to_string()]).wait().await;
    assert_eq!(status.code(), Some(1));
    workspace.spoil_redis();
    let (status, log) = workspace.start(&["up", "--port", &free_port().to_string()]).wait().await;
    assert_eq!(status.code(), Some(1));
    assert!(log.lines().last().unwrap().starts_with("error: Redis did not start: "), "{log}");
    assert!(workspace.ports().into_iter().all(port::is_free), "no server is left behind");
}

#[tokio::test]
async fn a_second_up_says_that_the_first_one_runs() {
    let workspace = Workspace::new();
    let mut first = workspace.start_building_forever(&["up", "--port", &free_port().to_string()]);
    first.says("2/4").await;
    let (status, log) = workspace.start(&["up", "--port", &free_port().to_string()]).wait().await;
    assert_eq!(status.code(), Some(1));
    let expected = format!(
        "error: `cargo xtask up` is already running here (process {}): stop that one first, with Ctrl-C\n",
        first.id()
    );
    assert_eq!(log, expected);

    // Stopped in the middle of its build.
    let ports = workspace.ports();
    first.stop().await;
    assert!(ports.into_iter().all(port::is_free), "no server is left behind");
}

#[tokio::test]
async fn commands_that_need_a_running_system_say_how_to_start_one() {
    for command in ["seed-data", "clear-cache", "reset-db"] {
        let (status, log) = Workspace::new().start(&[command]).wait().await;
        assert_eq!(status.code(), Some(1));
        assert!(log.starts_with("error: no system is known here: start it by `cargo xtask up`"), "{log}");
    }
}
