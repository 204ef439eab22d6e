//! `up`: the whole system, from start to end.

use std::net::TcpListener;
use std::process::Command;

use testbed::{eventually, free_port, http, port};

use crate::tool::Workspace;

#[tokio::test]
async fn the_printed_lines_work_and_the_data_is_found_again() {
    let workspace = Workspace::new();
    let port = free_port();
    let mut up = workspace.start(&["up", "--workers", "2", "--port", &port.to_string()]);
    up.says("The system is ready").await;
    let lines = what_to_try(&up.log());

    let docs = http::get(&format!("{}/docs", workspace.env("API_URL"))).await.unwrap();
    assert!(docs.status < 400, "{}", docs.status);
    let history = paste(&lines);
    assert!(history.contains(r#""action":"CREATED""#), "{history}");

    let ports = workspace.ports();
    let log = up.stop().await;
    let stopped: Vec<_> = log.lines().filter_map(|line| line.trim().strip_suffix(" has stopped")).collect();
    assert_eq!(stopped, ["The API", "Worker 1", "Worker 2", "Redis", "PostgreSQL"]);
    assert!(ports.iter().chain([&port]).all(|port| port::is_free(*port)), "nothing listens any more");

    let mut again = workspace.start(&["up", "--port", &port.to_string()]);
    again.says("The system is ready").await;
    assert_eq!(workspace.ports(), ports, "the addresses stay the same");
    let orders = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM orders")
        .fetch_one(&sqlx::PgPool::connect(&workspace.env("DATABASE_URL")).await.unwrap())
        .await
        .unwrap();
    assert!(orders >= 1);
    again.stop().await;
}

async fn orders_go_on_when_a_redis_server_ends(redis: &str) {
    let workspace = Workspace::new();
    let arguments = ["up", "--redis", redis, "--port", &free_port().to_string()];
    let mut up = workspace.start(&arguments);
    up.says("The system is ready").await;
    let url = workspace.env("REDIS_URL");
    assert!(url.starts_with(&format!("redis+{redis}://")) && up.log().contains(&url), "{url}");
    let lines = what_to_try(&up.log());
    assert!(paste(&lines).contains(r#""action":"CREATED""#));

    let port = std::fs::read_to_string(workspace.path(&format!(".data/redis-{redis}/node-1/port"))).unwrap();
    // It ends without an answer.
    let _cut = redis::cmd("SHUTDOWN")
        .arg("NOSAVE")
        .exec_async(&mut testbed::connect_redis(&format!("redis://127.0.0.1:{port}/0")).await.unwrap())
        .await;
    eventually("another one takes the writes", async || {
        let (status, log) = workspace.start(&["clear-cache"]).wait().await;
        if status.success() { Ok(()) } else { Err(log) }
    })
    .await;
    let login = format!("{}/api/v1/auth/login-test", workspace.env("API_URL"));
    eventually("the sessions are back", async || {
        http::request("POST", &login, &[], Some(r#"{"customer_id": 1}"#))
            .await
            .is_ok_and(|answer| answer.is_success())
    })
    .await;
    // The worker has some seconds to find the new master, too.
    eventually("orders have a history", async || {
        let history = paste(&lines);
        if history.contains(r#""action":"CREATED""#) { Ok(()) } else { Err(history) }
    })
    .await;
    up.stop().await;

    let mut again = workspace.start(&arguments);
    again.says("The system is ready").await;
    assert_eq!(workspace.env("REDIS_URL"), url, "the addresses stay the same");
    assert!(paste(&lines).contains(r#""action":"CREATED""#));
    again.stop().await;
}

#[tokio::test]
async fn orders_go_on_when_a_redis_server_with_sentinels_ends() {
    orders_go_on_when_a_redis_server_ends("sentinel").await;
}

#[tokio::test]
async fn orders_go_on_when_a_redis_server_of_a_cluster_ends() {
    orders_go_on_when_a_redis_server_ends("cluster").await;
}

#[tokio::test]
async fn test_data_comes_and_goes_beside_the_running_system() {
    let workspace = Workspace::new();
    let port = free_port();
    let mut up = workspace.start(&["up", "--port", &port.to_string()]);
    up.says("The system is ready").await;
    let database = sqlx::PgPool::connect(&workspace.env("DATABASE_URL")).await.unwrap();
    let count = async |table: &str| {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&database).await.unwrap()
    };

    let (status, log) = workspace.start(&["seed-data", "--orders", "50"]).wait().await;
    assert!(status.success(), "{log}");
    assert_eq!(count("orders").await, 50);
    assert!(count("order_lines").await >= 50);
    eventually("every event is in the history", async || {
        count("order_history").await == count("outbox").await
    })
    .await;

    let (status, log) = workspace.start(&["clear-cache"]).wait().await;
    assert!(status.success() && log.contains("50 cached orders"), "{log}");
    let (status, log) = workspace.start(&["reset-db"]).wait().await;
    assert!(status.success(), "{log}");
    assert_eq!((count("orders").await, count("order_history").await), (0, 0));
    let (status, log) = workspace.start(&["seed-data", "--orders", "5", "--tenants", "2"]).wait().await;
    assert!(status.success(), "{log}");
    assert_eq!((count("orders").await, count("tenants").await), (5, 2));
    up.stop().await;
}

#[tokio::test]
async fn a_killed_worker_is_started_again_and_the_rest_goes_on() {
    let workspace = Workspace::new();
    let mut up = workspace.start(&["up", "--workers", "2", "--port", &free_port().to_string()]);
    up.says("The system is ready").await;
    let log = up.log();
    let worker = log.split_once("Worker 2 is ready (process ").and_then(|(_, rest)| rest.split_once(')'));
    let (worker, _) = worker.expect("it says which process the worker is");
    let addresses = workspace.env("WORKER_METRICS_ADDRS");
    let (_, address) = addresses.split_once(',').expect("two addresses");
    assert!(Command::new("sh").args(["-c", &format!("kill -9 {worker}")]).status().unwrap().success());
    // So that its first new start fails.
    let taken = eventually("the port is free", async || TcpListener::bind(address)).await;
    up.says("Worker 2 has ended (signal: 9 (SIGKILL)) and is started again").await;
    up.says("it is started again").await;
    drop(taken);
    eventually("it is ready again", async || up.log().matches("Worker 2 is ready").count() == 2).await;
    let health = http::get(&format!("{}/health", workspace.env("API_URL"))).await.unwrap();
    assert!(health.is_success(), "{}", health.body);
    let log = up.stop().await;
    let stopped: Vec<_> = log.lines().filter_map(|line| line.trim().strip_suffix(" has stopped")).collect();
    assert_eq!(stopped, ["The API", "Worker 1", "Worker 2", "Redis", "PostgreSQL"]);
}

#[tokio::test]
async fn the_programs_leave_half_of_the_cores_to_the_servers_beside_them() {
    let workspace = Workspace::new();
    let mut up = workspace.start(&["up", "--port", &free_port().to_string()]);
    up.says("The system is ready").await;
    let log = up.log();
    let half = testbed::threads_beside_servers();
    for title in ["The API", "Worker 1"] {
        let process =
            log.split_once(&format!("{title} is ready (process ")).and_then(|(_, rest)| rest.split_once(')'));
        let (process, _) = process.expect("it says which process it is");
        // Only Linux shows a process's variables.
        if let Ok(variables) = std::fs::read_to_string(format!("/proc/{process}/environ")) {
            let expected = format!("TOKIO_WORKER_THREADS={half}");
            assert!(variables.split('\0').any(|variable| variable == expected), "{title}: {variables:?}");
        }
    }
    up.stop().await;
}

#[tokio::test]
async fn everything_ends_when_up_is_killed_and_the_next_one_starts() {
    let workspace = Workspace::new();
    let api = free_port();
    let mut up = workspace.start(&["up", "--port", &api.to_string()]);
    up.says("The system is ready").await;
    // The process alone: its children are the watchdog's.
    assert!(Command::new("sh").args(["-c", &format!("kill -9 {}", up.id())]).status().unwrap().success());
    let (status, _) = up.wait().await;
    assert!(!status.success());

    let mut next = workspace.start(&["up", "--port", &api.to_string()]);
    next.says("The system is ready").await;
    let ports = workspace.ports();
    next.stop().await;
    assert!(ports.iter().chain([&api]).all(|port| port::is_free(*port)));
}

/// The lines that begin with a variable or with curl.
fn what_to_try(log: &str) -> Vec<String> {
    let starts = ["TOKEN=", "ORDER=", "curl "];
    log.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
}

/// What a shell answers to the last of them, which is asked again until the worker has written the history.
fn paste(lines: &[String]) -> String {
    let [token, order, history] = lines else { panic!("three lines: {lines:?}") };
    let script = format!(
        "{token}\n{order}\ncase $ORDER in ''|*[!0-9]*) echo \"no order: $ORDER\"; exit;; esac\n\
         for _ in $(seq 300); do OUT=$({history})\n\
         case $OUT in *CREATED*) break;; esac; sleep 0.1; done; echo \"$OUT\""
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
