//! `GET /api/v1/orders/{id}/history`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    orders_support::{order, path},
    support::TestApp,
};

/// Records what the log holds, as the worker does, up to a version.
async fn record(app: &TestApp, versions: &[i64]) {
    sqlx::query(
        "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT order_id, version, upper(substr(event_type, 6)), payload::json->'data'->'changes',
                (payload::json->'data'->>'customer_id')::bigint, (payload::json->'data'->>'performed_by')::bigint,
                event_id, (payload::json->>'time')::timestamptz
         FROM outbox WHERE version = ANY($1)",
    )
    .bind(versions)
    .execute(&app.db)
    .await
    .unwrap();
}

#[tokio::test]
async fn the_history_tells_every_change_and_where_it_has_a_gap() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let history = format!("{}/history", path(id));
    let empty = session.get(&history).await.expect(StatusCode::OK);
    assert_eq!(empty.json, json!({"order_id": id, "entries": [], "complete_through": 0}));

    session.put(&path(id), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    app.login_admin(7).await.put(&path(id), &json!({"status": "DELIVERED"})).await.expect(StatusCode::OK);
    record(&app, &[1, 3]).await;
    let gap = session.get(&history).await.expect(StatusCode::OK);
    assert_eq!(gap.json["complete_through"], 1);
    record(&app, &[2]).await;
    let full = session.get(&history).await.expect(StatusCode::OK);
    assert_eq!(full.json["complete_through"], 3);
    let entries = full.json["entries"].as_array().unwrap();
    let told: Vec<(&Value, &Value, &Value)> =
        entries.iter().map(|entry| (&entry["version"], &entry["action"], &entry["performed_by"])).collect();
    assert_eq!(
        told,
        [
            (&json!(1), &json!("CREATED"), &json!(1)),
            (&json!(2), &json!("UPDATED"), &json!(1)),
            (&json!(3), &json!("UPDATED"), &json!(7)),
        ]
    );
    assert_eq!(entries[1]["changes"], json!({"status": {"from": "PENDING", "to": "SHIPPED"}}));
    for name in ["event_id", "occurred_at", "recorded_at"] {
        assert!(entries[0][name].is_string(), "{name}");
    }
    app.drain().await;
}

#[tokio::test]
async fn it_answers_for_deleted_orders_too_but_only_to_who_may_see_them() {
    let app = TestApp::start().await;
    let (owner, other, admin) = (app.login(1).await, app.login(2).await, app.login_admin(3).await);
    let id = owner.place(&order()).await;
    let history = format!("{}/history", path(id));
    other.get(&history).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    owner.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    // Gone, and nothing is recorded yet: neither order nor history is there.
    owner.get(&history).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    record(&app, &[1, 2]).await;
    for session in [&owner, &admin] {
        let told = session.get(&history).await.expect(StatusCode::OK);
        assert_eq!(told.json["complete_through"], 2);
        assert_eq!(told.json["entries"][1]["action"], "DELETED");
    }
    other.get(&history).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    owner.get("/api/v1/orders/4711/history").await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    app.drain().await;
}
