//! How far the history is behind the log, from the database alone: no worker runs in these tests.

use api::{
    http::health::operators::Operators,
    outbox::{HistoryLag, Lag},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use testbed::eventually;
use tower::ServiceExt as _;

use crate::{
    orders_support::order,
    outbox_support::Log,
    support::{TestApp, server_address},
};

/// Measured anew, without what an earlier measurement found out.
async fn measure(log: &Log) -> Lag {
    HistoryLag::new(log.db.clone()).measure().await.expect("the lag")
}

/// As if a worker had recorded these orders' events.
async fn record(log: &Log, condition: &str) {
    let sql = format!(
        "INSERT INTO order_history
             (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT order_id, version, 'CREATED', '{{}}', 1, 1, event_id, recorded_at FROM outbox WHERE {condition}
         ON CONFLICT DO NOTHING"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&log.db).await.expect("the history is written");
}

fn operators(app: &TestApp) -> Router {
    let operators = Operators::default();
    operators.attach(&app.app.state.health);
    operators.router(PrometheusBuilder::new().build_recorder().handle())
}

async fn lag(operators: &Router) -> (StatusCode, Value) {
    let request = Request::get("/lag").body(Body::empty()).expect("a request");
    let answer = operators.clone().oneshot(request).await.expect("an answer");
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 10_000).await.expect("a body");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn events_without_history_are_counted_with_the_age_of_the_oldest() {
    let log = Log::new().await;
    assert_eq!(measure(&log).await, Lag::default());
    log.append_many(1..=5).await;
    log.run("UPDATE outbox SET recorded_at = now() - interval '1 hour' WHERE order_id <= 2").await;
    assert_eq!(measure(&log).await.events, 5);
    // Later ones first: a gap counts, wherever it is.
    record(&log, "order_id IN (1, 3, 5)").await;
    let lag = measure(&log).await;
    assert_eq!(lag.events, 2);
    assert!((3600.0..3700.0).contains(&lag.oldest_seconds), "{lag:?}");
    log.run(
        "INSERT INTO dead_letters (event_id, order_id, version, body, source, reason, attempts, broker)
         SELECT event_id, order_id, version, payload::bytea, 'history', 'told so', 1, 'local'
         FROM outbox WHERE order_id = 2",
    )
    .await;
    let lag = measure(&log).await;
    assert_eq!(lag.events, 1, "a dead letter waits for an operator");
    assert!(lag.oldest_seconds < 3600.0, "{lag:?}");
    log.run("UPDATE dead_letters SET redriven_at = now()").await;
    assert_eq!(measure(&log).await.events, 2, "it is on its way again");
    record(&log, "true").await;
    assert_eq!(measure(&log).await, Lag::default());
}

#[tokio::test]
async fn in_a_long_log_one_gap_is_found_and_a_long_lag_is_estimated() {
    let log = Log::new().await;
    log.append_many(1..=50_000).await;
    record(&log, "order_id <> 25000").await;
    assert_eq!(measure(&log).await.events, 1);
    log.append_many(50_001..=100_000).await;
    let lag = measure(&log).await;
    assert!((49_000..=51_000).contains(&lag.events), "{lag:?}");
    // What the reconciler has seen is not looked at again.
    log.run("UPDATE relay SET reconciled = (SELECT max(id) FROM outbox)").await;
    assert_eq!(measure(&log).await, Lag::default());
}

#[tokio::test]
async fn the_lag_is_on_the_operators_port_and_makes_the_api_degraded_beyond_its_limit() {
    let app = TestApp::start().await;
    let operators = operators(&app);
    let nothing = (StatusCode::OK, json!({"events": 0, "oldest_seconds": 0}));
    eventually("nothing is late", async || lag(&operators).await == nothing).await;
    let session = app.login(7).await;
    for _ in 0..3 {
        session.place(&order()).await;
    }
    eventually("the lag is three events", async || lag(&operators).await.1["events"] == 3).await;
    sqlx::query("UPDATE outbox SET recorded_at = now() - interval '31 seconds'")
        .execute(&app.db)
        .await
        .unwrap();
    eventually("the lag is old", async || {
        lag(&operators).await.1["oldest_seconds"].as_u64().is_some_and(|seconds| seconds >= 31)
    })
    .await;
    let report = eventually("health says so", async || {
        Some(app.get("/health").await).filter(|report| {
            let history = &report.json["services"]["history"];
            history["status"] == "degraded" && history["unrecorded"] == 3
        })
    })
    .await;
    assert_eq!(report.json["status"], "degraded");
    assert!(
        report.json["services"]["history"]["detail"].as_str().is_some_and(|text| text.contains("history"))
    );
    app.expect_ready().await;
}

#[tokio::test]
async fn a_lag_that_cannot_be_measured_is_reported_as_unknown() {
    let proxy = testbed::Proxy::start(server_address("DATABASE_URL")).await;
    let database = testbed::postgres().await;
    let url = database.url().replacen(&server_address("DATABASE_URL"), &proxy.addr().to_string(), 1);
    let app = TestApp::with().set("DATABASE_URL", url).start().await;
    let operators = operators(&app);
    eventually("the lag is known", async || lag(&operators).await.0 == StatusCode::OK).await;
    proxy.freeze();
    let (_, problem) = eventually("the lag is unknown", async || {
        Some(lag(&operators).await).filter(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    assert_eq!(problem["code"], "unavailable");
    proxy.thaw();
    eventually("the lag is known again", async || lag(&operators).await.0 == StatusCode::OK).await;
    app.drain().await;
}
