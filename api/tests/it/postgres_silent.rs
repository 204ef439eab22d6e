//! Connections to PostgreSQL that are open and lead nowhere, as after a lost node.

use reqwest::StatusCode;
use testbed::{Proxy, eventually_within};

use crate::{
    orders_support::order,
    postgres_support::{FailingApp, SOON},
    support::{Options, TestApp, server_address},
};

/// A database, its address behind a proxy, and the proxy.
async fn behind_proxy() -> (testbed::Database, String, Proxy) {
    let database = testbed::postgres().await;
    let server = server_address("DATABASE_URL");
    let proxy = Proxy::start(server.clone()).await;
    let url = database.url().replacen(&server, &proxy.addr().to_string(), 1);
    (database, url, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_postgresql_stopped_answering_everything_works_again_within_seconds_without_a_500() {
    let (_database, url, proxy) = behind_proxy().await;
    let app = FailingApp::start(Options::default(), &url).await;
    app.warm_up().await;
    proxy.silence();
    app.recovers().await;
    // Once more after a rest, in which connections are not used.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    proxy.silence();
    app.recovers().await;
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_succeed_although_their_connections_are_cut() {
    let (_database, url, proxy) = behind_proxy().await;
    let app = FailingApp::start(Options::default(), &url).await;
    app.warm_up().await;
    proxy.cut();
    app.recovers().await;
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_requests_that_timed_out_do_not_accumulate_in_postgresql() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    session.place(&order()).await;
    let mut lock = app.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE orders, order_history, accounts IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let body = order();
    let credentials = serde_json::json!({"email": "ada@example.com", "password": "correct horse battery"});
    for _ in 0..2 {
        let (created, list, history, login) = tokio::join!(
            session.post("/api/v1/orders", &body),
            session.get("/api/v1/orders"),
            session.get("/api/v1/orders/1/history"),
            app.post("/api/v1/auth/login", &credentials),
        );
        for answer in [created, list, history, login] {
            let answer = answer.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
            assert!(answer.header("retry-after").is_some());
        }
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND application_name IN ('api', 'api-read', 'api-write')";
    eventually_within(SOON, "nobody waits any more", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&app.db).await.unwrap() == 0
    })
    .await;
    lock.rollback().await.unwrap();
    session.place(&order()).await;
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_503_with_and_without_a_key_and_does_not_delay_others() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let mut lock = app.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE order_lines IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let body = order();
    let creations = (0..20).map(|number| {
        let request = session.request(reqwest::Method::POST, "/api/v1/orders").json(&body);
        let key = (number % 2 == 0).then(|| format!("key-{number}"));
        crate::support::answer(match key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        })
    });
    let path = crate::orders_support::path(id);
    let change = serde_json::json!({"status": "CONFIRMED"});
    let (created, changed) =
        tokio::join!(futures_util::future::join_all(creations), session.patch(&path, &change));
    for answer in created.into_iter().chain([changed]) {
        let answer = answer.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    lock.rollback().await.unwrap();
    session.place(&order()).await;
    app.drain().await;
}
