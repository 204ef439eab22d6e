//! Health, with each dependency stopped in turn.

use reqwest::StatusCode;

use crate::support::{Answer, TestApp, server_address};

const HEALTH: &str = "/api/v1/health";

async fn until(app: &TestApp, what: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
    testbed::eventually(what, async || Some(app.get(HEALTH).await).filter(|answer| holds(answer))).await
}

/// Whether the API is degraded because this service is unhealthy.
fn is_degraded_by(report: &Answer, service: &str) -> bool {
    report.json["status"] == "degraded" && report.json["services"][service]["status"] == "unhealthy"
}

#[tokio::test]
async fn with_all_dependencies_the_api_is_healthy() {
    let app = TestApp::start().await;
    let report = until(&app, "the API is healthy and knows its figures", |report| {
        let services = &report.json["services"];
        report.json["status"] == "healthy"
            && services["events"]["unpublished"] == 0
            && services["history"]["unrecorded"] == 0
    })
    .await;
    assert_eq!(report.status, StatusCode::OK);
    assert_eq!(report.json["version"], env!("CARGO_PKG_VERSION"));
    assert!(report.json["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    for service in ["database", "redis"] {
        assert_eq!(report.json["services"][service]["status"], "healthy");
        assert!(report.json["services"][service]["latency_ms"].is_f64());
    }
    let events = &report.json["services"]["events"];
    assert_eq!(events["system"], "local");
    assert_eq!(events["status"], "healthy");
    assert_eq!(events["unpublished"], 0);
    assert_eq!(app.get("/health").await.json["status"], "healthy");
    app.expect_ready().await;
    assert_eq!(app.get("/api/v1/health/live").await.expect(StatusCode::OK).json["status"], "alive");
}

#[tokio::test]
async fn without_redis_the_api_is_degraded_and_ready() {
    let proxy = testbed::Proxy::start(server_address("REDIS_URL")).await;
    let app = TestApp::with()
        .set("EVENTS_REDIS_URL", testbed::setting("REDIS_URL").expect("REDIS_URL"))
        .set("REDIS_URL", format!("redis://{}/0", proxy.addr()))
        .start()
        .await;
    until(&app, "the API is healthy", |report| report.json["status"] == "healthy").await;
    proxy.refuse().await;
    proxy.cut();
    let report = until(&app, "the API is degraded by Redis alone", |report| {
        is_degraded_by(report, "redis") && report.json["services"]["database"]["status"] == "healthy"
    })
    .await;
    assert_eq!(report.status, StatusCode::OK);
    assert!(report.json["services"]["redis"]["latency_ms"].is_null());
    app.expect_ready().await;

    proxy.accept().await;
    until(&app, "the API is healthy again", |report| report.json["status"] == "healthy").await;
    app.drain().await;
}

#[tokio::test]
async fn without_the_broker_the_api_is_degraded_and_ready() {
    let proxy = testbed::Proxy::start(server_address("REDIS_URL")).await;
    let app = TestApp::with().set("EVENTS_REDIS_URL", format!("redis://{}/0", proxy.addr())).start().await;
    until(&app, "the API is healthy", |report| report.json["status"] == "healthy").await;
    proxy.refuse().await;
    proxy.cut();
    until(&app, "the API is degraded by the broker alone", |report| {
        is_degraded_by(report, "events") && report.json["services"]["redis"]["status"] == "healthy"
    })
    .await;
    app.expect_ready().await;
    app.drain().await;
}

#[tokio::test]
async fn without_postgresql_the_api_is_unhealthy_not_ready_and_alive() {
    let proxy = testbed::Proxy::start(server_address("DATABASE_URL")).await;
    let database = testbed::postgres().await;
    let url = database.url().replacen(&server_address("DATABASE_URL"), &proxy.addr().to_string(), 1);
    let app = TestApp::with().set("DATABASE_URL", url).start().await;
    until(&app, "the API is healthy", |report| report.json["status"] == "healthy").await;
    proxy.freeze();
    let report = until(&app, "the API is unhealthy", |report| report.json["status"] == "unhealthy").await;
    assert_eq!(report.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(report.header("content-type"), Some("application/json"));
    assert_eq!(report.json["services"]["database"]["status"], "unhealthy");
    let ready = app.get("/api/v1/health/ready").await;
    let ready = ready.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(ready.json["detail"].as_str().is_some_and(|detail| detail.contains("PostgreSQL")));
    assert!(ready.header("retry-after").is_some());
    app.get("/api/v1/health/live").await.expect(StatusCode::OK);

    proxy.thaw();
    until(&app, "the API is healthy again", |report| report.json["status"] == "healthy").await;
    app.drain().await;
}

#[tokio::test]
async fn polling_health_does_not_flood_the_dependencies() {
    let app = TestApp::start().await;
    let reports = futures_util::future::join_all((0..50).map(|_| app.get(HEALTH))).await;
    let mut times: Vec<_> = reports.iter().map(|report| report.json["timestamp"].to_string()).collect();
    // Not necessarily answered in the order in which they were asked.
    times.sort();
    times.dedup();
    assert!(times.len() <= 5, "{} probes for 50 questions", times.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_and_refuses_writes_makes_the_api_degraded() {
    let server = testbed::private_redis().await;
    let app = TestApp::with().set("REDIS_URL", server.url()).start().await;
    until(&app, "the API is healthy", |report| report.json["status"] == "healthy").await;
    let set = async |name: &str, value: &str| server.ask::<()>(&["CONFIG", "SET", name, value]).await;
    set("maxmemory-policy", "noeviction").await;
    set("maxmemory", "1").await;
    for service in ["redis", "events"] {
        until(&app, &format!("the API is degraded by {service}"), |report| {
            let detail = report.json["services"][service]["detail"].as_str();
            is_degraded_by(report, service) && detail.is_some_and(|detail| detail.contains("OOM"))
        })
        .await;
    }
    app.expect_ready().await;

    // Room for hardly more than is there.
    let used: u64 = server.info("used_memory").await.parse().expect("bytes");
    set("maxmemory", &(used * 21 / 20).to_string()).await;
    until(&app, "memory runs out", |report| {
        let redis = &report.json["services"]["redis"];
        redis["status"] == "degraded"
            && redis["detail"].as_str().is_some_and(|detail| detail.starts_with("memory runs out"))
    })
    .await;
    set("maxmemory", "0").await;
    until(&app, "the API is healthy again", |report| report.json["status"] == "healthy").await;
}
