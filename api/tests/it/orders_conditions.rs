//! `ETag`, `If-Match` and `If-None-Match`.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    orders_support::{order, path, without_database},
    support::TestApp,
};

#[tokio::test]
async fn of_a_hundred_updates_with_one_etag_exactly_one_wins() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=100 {
        let session = if number % 2 == 0 { session.clone() } else { replica.session(&session) };
        tasks.spawn(async move {
            let body = json!({"order_date": format!("2024-01-{:02}", number % 28 + 1)});
            session.send(Method::PATCH, &path(id), &[("if-match", "\"1\"")], Some(&body)).await
        });
    }
    let mut won = 0;
    for answer in tasks.join_all().await {
        if answer.status == StatusCode::OK {
            assert_eq!(answer.json["version"], 2);
            won += 1;
        } else {
            let lost = answer.expect_problem(StatusCode::PRECONDITION_FAILED, "version_mismatch");
            assert_eq!(lost.json["current_version"], 2);
        }
    }
    assert_eq!(won, 1);
    assert_eq!(app.events(id).await, ["OrderCreated 1", "OrderUpdated 2"]);
}

#[tokio::test]
async fn preconditions_hold_or_fail_as_rfc_9110_says() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let body = json!({});
    for (name, value, status) in [
        ("if-match", "\"1\"", 200),
        ("if-match", "\"7\", \"1\"", 200),
        ("if-match", "*", 200),
        ("if-match", "W/\"1\"", 412),
        ("if-match", "\"2\"", 412),
        ("if-match", "1", 400),
        ("if-match", "\"1", 400),
        ("if-none-match", "*", 412),
        ("if-none-match", "W/\"1\"", 412),
        ("if-none-match", "\"2\"", 200),
    ] {
        let answer = session.send(Method::PUT, &path(id), &[(name, value)], Some(&body)).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
    }
    let missing = session.send(Method::PUT, &path(999), &[("if-match", "*")], Some(&body)).await;
    missing.expect_problem(StatusCode::NOT_FOUND, "not_found");
    let stale = session.send(Method::DELETE, &path(id), &[("if-match", "\"2\"")], None).await;
    stale.expect_problem(StatusCode::PRECONDITION_FAILED, "version_mismatch");
    session
        .send(Method::DELETE, &path(id), &[("if-match", "\"1\"")], None)
        .await
        .expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_known_version_is_304_from_the_cache_without_postgresql() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    app.read_into_cache(&session, id).await;
    app.close_database().await;
    for (value, status) in [
        ("\"1\"", 304),
        ("W/\"1\"", 304),
        ("\"5\", \"1\"", 304),
        ("*", 304),
        ("\"2\"", 200),
        ("W/\"01\"", 200),
        ("nonsense", 400),
    ] {
        let headers = [("if-none-match", value)];
        let answer =
            without_database(async || session.send(Method::GET, &path(id), &headers, None).await).await;
        assert_eq!(answer.status.as_u16(), status, "{value}");
        if status == 304 {
            assert!(answer.bytes.is_empty());
            assert_eq!(answer.header("etag"), Some("\"1\""));
        }
    }
}
