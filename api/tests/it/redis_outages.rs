//! Redis that fails in silence, fails over or restarts: orders go on meanwhile, and everything else is back in seconds.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use testbed::{PrivateRedis, Proxy, eventually_within};

use crate::{
    orders_support::{order, path},
    support::{Answer, TestApp},
};

/// Within which everything works again, on a machine that has other things to do.
const RECOVERY: Duration = Duration::from_secs(30);

/// An API whose only Redis is this one, behind a proxy.
async fn start(server: &PrivateRedis) -> (TestApp, Proxy) {
    let proxy = Proxy::start(server.address()).await;
    let options = TestApp::with()
        .set("REDIS_URL", format!("redis://{}/0", proxy.addr()))
        .set("RATE_LIMIT_ADDRESS", "100000/60s");
    (options.start().await, proxy)
}

/// The answer once it is no 503; every 503 must say when to come back.
async fn once_available(what: &str, ask: impl AsyncFn() -> Answer) -> Answer {
    eventually_within(RECOVERY, what, async || {
        let answer = ask().await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return Ok(answer);
        }
        let answer = answer.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
        assert!(answer.header("retry-after").is_some(), "a 503 without Retry-After");
        Err("it is 503")
    })
    .await
}

/// What must hold through an outage that begins with `fail`, after which `server` is the Redis there is.
async fn survives(app: &TestApp, server: &PrivateRedis, fail: impl AsyncFnOnce()) {
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    session.get(&path(id)).await.expect(StatusCode::OK);
    fail().await;

    // Orders ask nobody's permission.
    session.put(&path(id), &json!({"status": "CONFIRMED"})).await.expect(StatusCode::OK);
    assert_eq!(session.get(&path(id)).await.expect(StatusCode::OK).json["status"], "CONFIRMED");
    let placed = session.place(&order()).await;
    session.get(&path(placed)).await.expect(StatusCode::OK);

    // Logging in, refreshing and logging out work again.
    let login = json!({"customer_id": 2});
    let pair = once_available("logging in works", async || app.post("/api/v1/auth/login-test", &login).await);
    let pair = pair.await.expect(StatusCode::OK);
    let token = json!({"refresh_token": pair.json["refreshToken"]});
    let pair = once_available("refreshing works", async || app.post("/api/v1/auth/refresh", &token).await);
    let pair = pair.await.expect(StatusCode::OK);
    let token = json!({"refresh_token": pair.json["refreshToken"]});
    let logout = once_available("logging out works", async || app.post("/api/v1/auth/logout", &token).await);
    logout.await.expect(StatusCode::NO_CONTENT);
    let ended = once_available("it has ended", async || app.post("/api/v1/auth/refresh", &token).await);
    ended.await.expect(StatusCode::UNAUTHORIZED);

    // The cache is right, and used.
    eventually_within(RECOVERY, "stale entries are corrected", async || {
        !app.app.state.orders.cache_degraded()
    })
    .await;
    let mut redis = server.connect().await;
    eventually_within(RECOVERY, "what is read is cached", async || {
        session.get(&path(id)).await.expect(StatusCode::OK);
        let entry: Option<String> =
            redis::cmd("GET").arg(format!("cache:order:{id}")).query_async(&mut redis).await.ok()?;
        entry.filter(|entry| entry.contains("CONFIRMED"))
    })
    .await;

    // Limits are counted for all replicas together again, and events go out.
    eventually_within(RECOVERY, "limits are counted in Redis", async || {
        app.get("/").await.expect(StatusCode::OK);
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("limit:address:*").query_async(&mut redis).await.unwrap_or_default();
        !keys.is_empty()
    })
    .await;
    eventually_within(RECOVERY * 2, "events are published and all is well", async || {
        let health = app.get("/api/v1/health").await.json;
        let well = health["status"] == "healthy" && health["services"]["events"]["unpublished"] == 0;
        well.then_some(()).ok_or(health)
    })
    .await;
    let entries: u64 = redis::cmd("XLEN").arg("events:orders").query_async(&mut redis).await.expect("XLEN");
    assert!(entries >= 3, "{entries} events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_silent_redis_orders_work_and_everything_else_recovers_within_seconds() {
    let server = testbed::private_redis().await;
    let (app, proxy) = start(&server).await;
    survives(&app, &server, async || proxy.silence()).await;
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_with_the_old_primary_as_a_replica_everything_recovers_within_seconds() {
    let (old, new) = tokio::join!(testbed::private_redis(), testbed::private_redis());
    new.replicate(&old).await;
    let (app, proxy) = start(&old).await;
    survives(&app, &new, async || {
        // What the old primary confirmed and had not passed on is lost, until it is sent again after a minute: not the subject here.
        let mut redis = new.connect().await;
        eventually_within(RECOVERY, "the replica has the first event", async || {
            let events: u64 =
                redis::cmd("XLEN").arg("events:orders").query_async(&mut redis).await.expect("XLEN");
            (events > 0).then_some(())
        })
        .await;
        new.promote().await;
        old.replicate(&new).await;
        proxy.lead_to(new.address());
    })
    .await;
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_a_killed_redis_everything_recovers_within_seconds() {
    let server = testbed::private_durable_redis().await;
    let (app, _proxy) = start(&server).await;
    survives(&app, &server, async || {
        server.kill();
        server.start().await;
    })
    .await;
    app.drain().await;
}
