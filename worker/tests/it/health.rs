//! Health, metrics and the canonical line of a running worker.

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use testbed::{Proxy, http};

use crate::support::{World, events::event};

fn split(url: &str) -> (String, String, String) {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.split_once('/').expect("a path");
    let (user, server) = authority.rsplit_once('@').map_or(("", authority), |(user, server)| (user, server));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    (format!("{scheme}://{user}"), server.to_owned(), path.to_owned())
}

async fn behind(url: &str) -> (String, Proxy) {
    let (front, server, path) = split(url);
    let proxy = Proxy::start(server).await;
    (format!("{front}{}/{path}", proxy.addr()), proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_reports_what_is_down_and_recovers_while_liveness_stays() {
    let world = World::new().await;
    let (database, to_database) = behind(world.database.url()).await;
    let (redis, to_redis) = behind(world.redis.url()).await;
    let (events, to_events) = behind(world.redis.url()).await;
    let (program, address) = world.running();
    let mut worker = program
        .env("DATABASE_URL", &database)
        .env("REDIS_URL", &redis)
        .env("EVENTS_REDIS_URL", &events)
        .spawn();
    let ready = format!("{address}/health/ready");
    worker.wait_ready(&ready).await;
    for (proxy, name) in [(&to_database, "database"), (&to_redis, "redis"), (&to_events, "events")] {
        proxy.refuse().await;
        proxy.cut();
        let body = testbed::eventually(&format!("it is not ready without {name}"), async || {
            let answer = http::get(&ready).await.map_err(|error| error.to_string())?;
            let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let said = body["detail"].as_str().unwrap_or_default();
            // On a busy machine another part may be late, too, and be named first.
            let is_so = answer.status == 503 && said.starts_with(&format!("not ready: {name}: "));
            if is_so { Ok(body) } else { Err(format!("{answer:?}")) }
        })
        .await;
        assert_eq!((body["status"].as_i64(), body["code"].as_str()), (Some(503), Some("unavailable")));
        assert!(http::get(&format!("{address}/health/live")).await.unwrap().is_success());
        proxy.accept().await;
        worker.wait_ready(&ready).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_before_its_broker_waits_for_it() {
    let world = World::new().await;
    let (events, to_events) = behind(world.redis.url()).await;
    to_events.refuse().await;
    let (program, address) = world.running();
    let mut worker = program.env("EVENTS_REDIS_URL", &events).spawn();
    worker.wait_ready(&format!("{address}/health/live")).await;
    let ready = format!("{address}/health/ready");
    assert_eq!(http::get(&ready).await.unwrap().status, 503);
    to_events.accept().await;
    worker.wait_ready(&ready).await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_has_one_line_without_its_payload_and_is_counted() {
    let world = World::new().await;
    let (program, address) = world.running();
    let mut worker = program.spawn();
    worker.wait_ready(&format!("{address}/health/ready")).await;
    let mut event = event(7, 1);
    event.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    world.publish(std::slice::from_ref(&event)).await;
    let line = testbed::eventually("the event's line is written", async || {
        let log = worker.log();
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["event.id"] == event.id.to_string())
    })
    .await;
    assert_eq!(line["event.type"], "OrderCreated");
    assert_eq!((&line["order.id"], &line["version"], &line["attempt"]), (&7.into(), &1.into(), &1.into()));
    assert_eq!((&line["outcome"], &line["broker"]), (&"handled".into(), &"local".into()));
    assert_eq!(line["traceparent"], event.traceparent.as_deref().unwrap());
    assert!(line["duration_ms"].as_f64().is_some_and(|took| took > 0.0), "{line}");
    assert!(!worker.log().contains("25.50"), "a payload was logged");

    let metrics = http::get(&format!("{address}/metrics")).await.unwrap().body;
    for sample in [
        r#"worker_events_received_total{broker="local"} 1"#,
        r#"worker_events_total{broker="local",outcome="handled"} 1"#,
        r#"worker_handler_duration_seconds_count{handler="history",broker="local"} 1"#,
        r#"worker_event_lag_seconds_count{broker="local"} 1"#,
        "worker_history_rows_total 1",
        r#"worker_backlog_events{broker="local"}"#,
    ] {
        assert!(metrics.contains(sample), "{sample} is not in\n{metrics}");
    }
}

/// Waits until the worker is not ready, with this in the detail.
async fn until_not_ready(address: &str, detail: &str) {
    testbed::eventually(&format!("it is not ready: {detail}"), async || {
        let answer =
            http::get(&format!("{address}/health/ready")).await.map_err(|error| error.to_string())?;
        if answer.status == 503 && answer.body.contains(detail) { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

async fn until_metric(address: &str, sample: &str) {
    testbed::eventually(&format!("the metrics have {sample}"), async || {
        let metrics = http::get(&format!("{address}/metrics")).await.map_err(|error| error.to_string())?.body;
        if metrics.lines().any(|line| line == sample) { Ok(()) } else { Err(metrics) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_database_that_was_never_migrated_the_worker_is_not_ready_and_reports_what_to_do() {
    let world = World::new().await;
    let database = testbed::empty_postgres().await;
    let (program, address) = world.running();
    let mut worker = program.env("DATABASE_URL", database.url()).spawn();
    worker.wait_ready(&format!("{address}/health/live")).await;
    until_not_ready(&address, "the database was never migrated: run `api migrate`").await;
    testbed::migrate(database.url()).await.expect("the database is migrated");
    worker.wait_ready(&format!("{address}/health/ready")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_blocks_batches_is_named_in_readiness_and_log_and_each_batch_is_counted_once() {
    let world = World::new().await;
    let (program, address) = world.running();
    let mut worker = program.spawn();
    worker.wait_ready(&format!("{address}/health/ready")).await;
    let mut operator = PgConnection::connect(world.database.url()).await.unwrap();
    sqlx::raw_sql(
        "SET application_name = 'an operator'; BEGIN; LOCK TABLE order_history IN ACCESS EXCLUSIVE MODE",
    )
    .execute(&mut operator)
    .await
    .unwrap();
    world.publish(&[event(7, 1)]).await;
    until_not_ready(&address, "AccessExclusiveLock on the table order_history").await;
    until_not_ready(&address, "held: 1 batch waits for history since").await;
    testbed::eventually("the log names the lock", async || {
        let log = worker.log();
        if log.contains("held batches wait for a lock: the session with pid") { Ok(()) } else { Err(log) }
    })
    .await;
    until_metric(&address, r#"worker_held_batches{part="history"} 1"#).await;
    drop(operator);
    worker.wait_ready(&format!("{address}/health/ready")).await;
    testbed::eventually("the event is recorded", async || world.recorded().await == [(7, 1)]).await;
    until_metric(&address, r#"worker_held_batches{part="history"} 0"#).await;
    // However often it was tried.
    until_metric(&address, r#"worker_held_total{part="history"} 1"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_cannot_be_read_is_nan_and_not_its_last_value() {
    let world = World::new().await;
    let (events, to_events) = behind(world.redis.url()).await;
    let (program, address) = world.running();
    let mut worker = program.env("EVENTS_REDIS_URL", &events).spawn();
    worker.wait_ready(&format!("{address}/health/ready")).await;
    let gauges = ["worker_backlog_events", "worker_backlog_oldest_seconds"];
    for (value, refused) in [("0", false), ("NaN", true), ("0", false)] {
        if refused {
            to_events.refuse().await;
            to_events.cut();
        } else {
            to_events.accept().await;
        }
        for gauge in gauges {
            until_metric(&address, &format!(r#"{gauge}{{broker="local"}} {value}"#)).await;
        }
    }
}
