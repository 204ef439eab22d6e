//! Rate limits: per address and per customer, exact over replicas, and there without Redis too.

use reqwest::{Method, StatusCode};
use serde_json::json;
use shared::domain::{clock::Clock, order::CustomerId, tenant::TenantId};
use time::{Duration, macros::datetime};

use crate::support::{Options, TestApp, answer};

const THREE_AN_HOUR: &str = "3/3600s";

/// A clock that stands still.
fn clock() -> Clock {
    Clock::manual(datetime!(2025-01-20 10:00 UTC))
}

fn exact() -> Options {
    TestApp::with().exact_limits(&clock())
}

#[tokio::test]
async fn without_settings_nothing_is_limited() {
    let app = TestApp::start().await;
    let answer = app.get("/").await.expect(StatusCode::OK);
    assert_eq!(answer.header("ratelimit"), None);
    assert_eq!(answer.header("ratelimit-policy"), None);
}

#[tokio::test]
async fn an_address_gets_its_quota_and_then_429_with_retry_after() {
    let clock = clock();
    let app = TestApp::with().exact_limits(&clock).set("RATE_LIMIT_ADDRESS", THREE_AN_HOUR).start().await;
    for left in [2, 1, 0] {
        let answer = app.get("/").await.expect(StatusCode::OK);
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""address";q=3;w=3600"#));
        let limit = answer.header("ratelimit").expect("a RateLimit field");
        assert!(limit.starts_with(&format!(r#""address";r={left};t="#)), "{limit}");
    }
    let refused = app.get("/").await.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    let wait: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert_eq!(wait, 1200);
    assert_eq!(refused.header("ratelimit"), Some(r#""address";r=0;t=3600"#));
    app.get("/health").await.expect(StatusCode::OK);
    clock.advance(Duration::seconds(1199));
    app.get("/").await.expect(StatusCode::TOO_MANY_REQUESTS);
    clock.advance(Duration::seconds(1));
    app.get("/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_limit_is_exact_over_replicas_and_concurrent_requests() {
    let app = exact().set("RATE_LIMIT_CUSTOMER", "20/3600s").start().await;
    let replica = app.replica().await;
    let customer = CustomerId::try_from(5).expect("an id");
    // A limit waits 50 ms for Redis, and making the first connection can take longer.
    for redis in [&app.app.state.redis, &replica.app.state.redis] {
        testbed::eventually("Redis answers", async || redis.ping().await).await;
    }
    let checks = (0..60).map(|index| {
        let state = if index % 2 == 0 { &app.app.state } else { &replica.app.state };
        state.rate_limiter.count_customer(TenantId::DEFAULT, customer)
    });
    let checks = futures_util::future::join_all(checks).await;
    let allowed = checks.iter().flatten().filter(|check| check.allowed).count();
    assert_eq!((checks.len(), allowed), (60, 20));
}

#[tokio::test]
async fn without_redis_each_process_counts_for_itself() {
    let app = exact()
        .set("REDIS_URL", format!("redis://127.0.0.1:{}", testbed::free_port()))
        .set("RATE_LIMIT_ADDRESS", THREE_AN_HOUR)
        .start()
        .await;
    for _ in 0..3 {
        app.get("/").await.expect(StatusCode::OK);
    }
    app.get("/").await.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn the_client_address_is_read_from_trusted_proxies_only() {
    let through = |app: &TestApp, forwarded: &str| {
        answer(app.request(Method::GET, "/").header("x-forwarded-for", forwarded.to_owned()))
    };
    let app = exact().set("RATE_LIMIT_ADDRESS", "1/3600s").start().await;
    through(&app, "192.0.2.1").await.expect(StatusCode::OK);
    through(&app, "192.0.2.2").await.expect(StatusCode::TOO_MANY_REQUESTS);

    let app = exact().set("RATE_LIMIT_ADDRESS", "1/3600s").set("TRUSTED_PROXIES", "1").start().await;
    through(&app, "192.0.2.1").await.expect(StatusCode::OK);
    through(&app, "192.0.2.2").await.expect(StatusCode::OK);
    through(&app, "198.51.100.9, 192.0.2.1").await.expect(StatusCode::TOO_MANY_REQUESTS);
    through(&app, "2001:db8::1").await.expect(StatusCode::OK);
    through(&app, "2001:db8::2").await.expect(StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_customer_at_its_limit_does_not_limit_others() {
    let app = exact().set("RATE_LIMIT_CUSTOMER", "1/3600s").start().await;
    let (alice, bob) = (app.login(1).await, app.login(2).await);
    let first = alice.get("/api/v1/orders").await.expect(StatusCode::OK);
    assert_eq!(first.header("ratelimit-policy"), Some(r#""customer";q=1;w=3600"#));
    alice.get("/api/v1/orders").await.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    bob.get("/api/v1/orders").await.expect(StatusCode::OK);
    app.post_until_available("/api/v1/auth/login-test", &json!({"customer_id": 1}))
        .await
        .expect(StatusCode::OK);
}
