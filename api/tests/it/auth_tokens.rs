//! Tokens: what opens the API and what does not, and how refresh tokens rotate.

use std::time::Duration as StdDuration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::{Duration, macros::datetime};

use crate::support::{Session, TestApp, claims, server_address};

const REFRESH: &str = "/api/v1/auth/refresh";

#[tokio::test]
async fn a_test_login_returns_the_documented_token_pair() {
    let clock = Clock::manual(datetime!(2025-01-20 10:00 UTC));
    let app = TestApp::with().clock(&clock).start().await;
    let pair = app.post_until_available("/api/v1/auth/login-test", &json!({"customer_id": 123})).await;
    let pair = pair.expect(StatusCode::OK);
    assert_eq!(pair.json["tokenType"], "bearer");
    assert_eq!(pair.json["expiresIn"], 1800);
    assert_eq!(pair.json["customerId"], 123);
    assert_eq!(pair.json.as_object().map(serde_json::Map::len), Some(5));

    let at = clock.now().unix_timestamp();
    for (name, kind, lifetime) in [("accessToken", "access", 1800), ("refreshToken", "refresh", 7 * 86_400)] {
        let claims = claims(pair.json[name].as_str().expect("a token"));
        assert_eq!(claims["sub"], "123");
        assert_eq!(claims["customer_id"], 123);
        assert_eq!(claims["role"], "customer");
        assert_eq!(claims["type"], kind);
        assert_eq!(claims["iat"], at);
        assert_eq!(claims["exp"], at + lifetime);
        assert!(claims["jti"].is_string());
    }
}

#[tokio::test]
async fn the_test_login_does_not_exist_without_debug() {
    let app = TestApp::with().set("DEBUG", "false").start().await;
    let answer = app.post("/api/v1/auth/login-test", &json!({"customer_id": 123})).await;
    answer.expect_problem(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn a_refresh_token_can_be_used_once_and_a_late_second_use_ends_the_session() {
    let clock = Clock::manual(datetime!(2025-01-20 10:00 UTC));
    let app = TestApp::with().clock(&clock).start().await;
    let first = app.login(7).await.refresh;
    clock.advance(Duration::minutes(1));
    let second = app.refresh(&first).await.expect(StatusCode::OK);

    clock.advance(Duration::seconds(10));
    let again = app.refresh(&first).await.expect(StatusCode::OK);
    assert_eq!(second.bytes, again.bytes, "within the grace the successor is the same");

    clock.advance(Duration::milliseconds(1));
    let stolen = app.refresh(&first).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    assert!(
        stolen.header("www-authenticate").is_some_and(|value| value.contains(r#"error="invalid_token""#))
    );
    let successor = second.json["refreshToken"].as_str().expect("a token");
    app.refresh(successor).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

#[tokio::test]
async fn concurrent_refreshes_of_one_token_get_equal_pairs() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let session = app.login(7).await;
    let other = replica.session(&session);
    let body = json!({"refresh_token": session.refresh});
    let requests = (0..20).map(|index| {
        let session: &Session = if index % 2 == 0 { &session } else { &other };
        session.post(REFRESH, &body)
    });
    let answers = futures_util::future::join_all(requests).await;
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.bytes, answers[0].bytes);
    }
}

#[tokio::test]
async fn a_chain_of_refreshes_within_the_grace_keeps_the_session() {
    let app = TestApp::start().await;
    let first = app.login(7).await.refresh;
    let second = app.refresh(&first).await.expect(StatusCode::OK);
    let token = second.json["refreshToken"].as_str().expect("a token");
    let third = app.refresh(token).await.expect(StatusCode::OK);
    assert_eq!(app.refresh(&first).await.bytes, second.bytes);
    assert_eq!(app.refresh(token).await.bytes, third.bytes);
}

#[tokio::test]
async fn a_logout_ends_the_whole_session() {
    let app = TestApp::start().await;
    let first = app.login(7).await.refresh;
    let second = app.refresh(&first).await.expect(StatusCode::OK);
    app.post("/api/v1/auth/logout", &json!({"refresh_token": first})).await.expect(StatusCode::NO_CONTENT);
    for token in [first.as_str(), second.json["refreshToken"].as_str().expect("a token")] {
        app.refresh(token).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    app.post("/api/v1/auth/logout", &json!({"refresh_token": first})).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_previous_secret_verifies_but_never_signs() {
    let app = TestApp::start().await;
    let old = app.login(7).await;
    let new_secret = "another secret of the tests, just as long";
    let mut config = app.app.state.config.clone();
    config.auth.previous_secrets = vec![config.auth.secret.clone()];
    config.auth.secret = new_secret.to_owned().into();
    config.listen.set_port(0);
    let shutdown = shared::platform::shutdown::Shutdown::new();
    let rotated = api::app::App::start(config, Clock::System, &shutdown).await.expect("the API starts");
    let url = format!("http://{}{REFRESH}", rotated.addr);
    let answer = reqwest::Client::new().post(url).json(&json!({"refresh_token": old.refresh})).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let pair: Value = answer.json().await.expect("JSON");
    let token = pair["refreshToken"].as_str().expect("a token");
    app.refresh(token).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    shutdown.begin();
    assert!(shutdown.drained(StdDuration::from_secs(30)).await);
}

#[tokio::test]
async fn without_redis_a_login_and_a_refresh_are_503() {
    let proxy = testbed::Proxy::start(server_address("REDIS_URL")).await;
    let app = TestApp::with().set("REDIS_URL", format!("redis://{}/0", proxy.addr())).start().await;
    let session = app.login(7).await;
    proxy.refuse().await;
    proxy.cut();
    let token = json!({"refresh_token": session.refresh});
    let answer = app.post(REFRESH, &token).await;
    let answer = answer.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(answer.header("retry-after").is_some());
    let answer = app.post("/api/v1/auth/login-test", &json!({"customer_id": 7})).await;
    answer.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    proxy.accept().await;
    testbed::eventually("the API finds Redis again", async || {
        app.post(REFRESH, &token).await.status == StatusCode::OK
    })
    .await;
    app.drain().await;
}
