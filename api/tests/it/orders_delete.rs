//! `DELETE /api/v1/orders/{id}`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    orders_support::{order, path},
    support::TestApp,
};

#[tokio::test]
async fn a_deleted_order_is_gone_with_its_lines_and_its_event_has_the_last_version() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let last = session.put(&path(id), &json!({"status": "CONFIRMED"})).await.json;

    let deleted = session.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    assert!(deleted.bytes.is_empty());
    for _ in 0..2 {
        session.get(&path(id)).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
        app.forget_cached(id).await;
    }
    session.delete(&path(id)).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    session.put(&path(id), &json!({})).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    assert_eq!(app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM order_lines WHERE tenant_id = 1").await, 0);
    assert_eq!(app.events(id).await, ["OrderCreated 1", "OrderUpdated 2", "OrderDeleted 3"]);

    let payload: String =
        sqlx::query_scalar("SELECT payload FROM outbox WHERE version = 3").fetch_one(&app.db).await.unwrap();
    let event: Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(event["data"]["version"], 3);
    assert_eq!(event["data"]["order"], last);
    let changes = &event["data"]["changes"];
    assert_eq!(changes["status"], json!({"from": "CONFIRMED", "to": null}));
    assert_eq!(changes["lines"], json!({"from": last["lines"], "to": null}));
    assert_eq!(changes.as_object().unwrap().len(), 6, "also the metadata");
}

#[tokio::test]
async fn of_many_deletions_at_once_one_succeeds() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let session = session.clone();
        tasks.spawn(async move { session.delete(&path(id)).await.status });
    }
    let statuses = tasks.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::NO_CONTENT).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::NOT_FOUND).count(), 19);
    assert_eq!(app.events(id).await, ["OrderCreated 1", "OrderDeleted 2"]);
}
