//! `PUT` and `PATCH /api/v1/orders/{id}`.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::order::OrderStatus;
use testbed::eventually;

use crate::{
    orders_support::{order, path, two_lines},
    support::{Session, TestApp},
};

/// The moves that lead from `PENDING` to a status.
fn way_to(status: OrderStatus) -> &'static [OrderStatus] {
    use OrderStatus::{Cancelled, Confirmed, Delivered, Pending, Shipped};
    match status {
        Pending => &[],
        Confirmed => &[Confirmed],
        Shipped => &[Shipped],
        Delivered => &[Shipped, Delivered],
        Cancelled => &[Cancelled],
    }
}

async fn place_at(session: &Session, status: OrderStatus) -> i64 {
    let id = session.place(&order()).await;
    for step in way_to(status) {
        session.put(&path(id), &json!({"status": step})).await.expect(StatusCode::OK);
    }
    id
}

#[tokio::test]
async fn every_pair_of_statuses_is_allowed_or_refused_as_the_table_says() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    for from in OrderStatus::ALL {
        for to in OrderStatus::ALL {
            let id = place_at(&session, from).await;
            let version = way_to(from).len() + 1;
            let answer = session.patch(&path(id), &json!({"status": to})).await;
            if from.can_become(to) {
                let changed = answer.expect(StatusCode::OK);
                assert_eq!(changed.json["status"], to.as_str());
                assert_eq!(changed.json["version"], version + 1);
                assert_eq!(changed.header("etag"), Some(&*format!("\"{}\"", version + 1)));
            } else if from == to {
                assert_eq!(answer.expect(StatusCode::OK).json["version"], version, "staying is no change");
            } else {
                let refused = answer.expect_problem(StatusCode::CONFLICT, "illegal_transition");
                assert_eq!(refused.json["from"], from.as_str());
                assert_eq!(refused.json["to"], to.as_str());
                assert_eq!(refused.json["allowed"], json!(from.moves()));
            }
        }
    }
}

#[tokio::test]
async fn only_what_is_named_changes() {
    let app = TestApp::start().await;
    let session = app.login(9).await;
    let id = session.place(&order()).await;
    let before = session.get(&path(id)).await.json;

    let dated = session.put(&path(id), &json!({"order_date": "2024-12-31"})).await.expect(StatusCode::OK);
    let mut expected = before.clone();
    expected["order_date"] = json!("2024-12-31");
    expected["version"] = json!(2);
    expected["updated_at"] = dated.json["updated_at"].clone();
    assert_eq!(dated.json, expected);

    let lines = json!([{"product_id": 1002, "quantity": 3, "unit_price": "0.01"}, {"product_id": 5, "quantity": 1, "unit_price": 1}]);
    let relined = session
        .patch(&path(id), &json!({"lines": lines, "status": "CONFIRMED"}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(relined.json["total_amount"], "1.03");
    assert_eq!(relined.json["status"], "CONFIRMED");
    assert_eq!(relined.json["version"], 3);
    assert_eq!(
        relined.json["lines"][0]["id"], before["lines"][1]["id"],
        "a line keeps its id with its product"
    );
    let new = relined.json["lines"][1]["id"].as_i64().unwrap();
    assert!(before["lines"].as_array().unwrap().iter().all(|line| line["id"] != new));

    for _ in 0..2 {
        assert_eq!(session.get(&path(id)).await.bytes, relined.bytes);
        // From the database, too.
        app.forget_cached(id).await;
    }
    assert_eq!(app.events(id).await, ["OrderCreated 1", "OrderUpdated 2", "OrderUpdated 3"]);
    let changes: Value = sqlx::query_scalar::<_, sqlx::types::Json<Value>>(
        "SELECT payload::json->'data'->'changes' FROM outbox WHERE version = 3",
    )
    .fetch_one(&app.db)
    .await
    .unwrap()
    .0;
    assert_eq!(changes["status"], json!({"from": "PENDING", "to": "CONFIRMED"}));
    assert_eq!(changes["lines"], json!({"from": before["lines"], "to": relined.json["lines"]}));
    assert_eq!(changes["total_amount"], json!({"from": "66.00", "to": "1.03"}));
    assert_eq!(changes.as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_version_and_emits_nothing() {
    let app = TestApp::start().await;
    let session = app.login(9).await;
    let id = session.place(&order()).await;
    let before = session.get(&path(id)).await;
    for body in [
        json!({}),
        json!({"status": "PENDING"}),
        json!({"order_date": "2025-01-20"}),
        json!({"lines": two_lines()}),
        json!({"lines": [
            {"product_id": 1001, "quantity": 2, "unit_price": "25.5"},
            {"product_id": 1002, "quantity": 1, "unit_price": "15"},
        ], "status": "PENDING", "order_date": "2025-01-20"}),
    ] {
        let same = session.put(&path(id), &body).await.expect(StatusCode::OK);
        assert_eq!(same.bytes, before.bytes, "{body}");
        assert_eq!(same.header("etag"), Some("\"1\""));
    }
    assert_eq!(app.events(id).await, ["OrderCreated 1"]);
}

#[tokio::test]
async fn date_and_lines_are_fixed_once_the_order_has_left_pending() {
    let app = TestApp::start().await;
    let session = app.login(9).await;
    let id = place_at(&session, OrderStatus::Shipped).await;
    for body in [
        json!({"order_date": "2025-01-19"}),
        json!({"lines": [{"product_id": 1, "quantity": 1, "unit_price": 1}]}),
        json!({"status": "DELIVERED", "order_date": "2025-01-19"}),
    ] {
        let refused =
            session.patch(&path(id), &body).await.expect_problem(StatusCode::CONFLICT, "order_not_editable");
        assert_eq!(refused.json["order_status"], "SHIPPED");
    }
    // Naming what is there already edits nothing.
    let same = json!({"order_date": "2025-01-20", "lines": two_lines(), "status": "DELIVERED"});
    assert_eq!(session.put(&path(id), &same).await.expect(StatusCode::OK).json["version"], 3);
}

#[tokio::test]
async fn all_errors_of_an_update_are_reported_at_once() {
    let app = TestApp::start().await;
    let session = app.login(9).await;
    let id = session.place(&order()).await;
    let body = json!({
        "status": "LOST", "order_date": "yesterday", "customer_id": 9, "version": 1,
        "lines": [{"product_id": 1, "quantity": 0, "unit_price": "1.001"}],
    });
    let refused = session
        .put(&path(id), &body)
        .await
        .expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(
        refused.faults(),
        [
            "/customer_id unknown_field",
            "/lines/0/quantity out_of_range",
            "/lines/0/unit_price too_many_decimals",
            "/order_date invalid_value",
            "/status invalid_value",
            "/version unknown_field",
        ]
    );
    let nulls = json!({"status": null, "lines": null, "order_date": null});
    let refused = session
        .patch(&path(id), &nulls)
        .await
        .expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(refused.faults(), ["/lines invalid_type", "/order_date invalid_type", "/status invalid_type"]);
}

#[tokio::test]
async fn customers_do_not_see_orders_of_others_and_administrators_see_all() {
    let app = TestApp::start().await;
    let (owner, other, admin) = (app.login(1).await, app.login(2).await, app.login_admin(3).await);
    let id = owner.place(&order()).await;
    for missing in [
        path(id),
        path(id + 1000),
        path(0),
        path(-1),
        "/api/v1/orders/abc".into(),
        "/api/v1/orders/01".into(),
    ] {
        let body = json!({"status": "SHIPPED"});
        for (method, body) in [
            (Method::GET, None),
            (Method::PUT, Some(&body)),
            (Method::PATCH, Some(&body)),
            (Method::DELETE, None),
        ] {
            other.send(method, &missing, &[], body).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
        }
    }
    assert_eq!(admin.get(&path(id)).await.expect(StatusCode::OK).json["customer_id"], 1);
    let shipped = admin.put(&path(id), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    assert_eq!(shipped.json["customer_id"], 1);
    let by: i64 = app
        .count("SELECT (payload::json->'data'->>'performed_by')::bigint FROM outbox WHERE version = 2")
        .await;
    assert_eq!(by, 3);
    assert_eq!(owner.get(&path(id)).await.bytes, shipped.bytes);
}

#[tokio::test]
async fn a_hundred_updates_of_one_order_at_once_all_take_effect_in_order() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=100 {
        let session = if number % 2 == 0 { session.clone() } else { replica.session(&session) };
        tasks.spawn(async move {
            let lines = json!([{"product_id": number, "quantity": 1, "unit_price": number}]);
            let changed = session.put(&path(id), &json!({"lines": lines})).await.expect(StatusCode::OK);
            changed.json["version"].as_i64().unwrap()
        });
    }
    let mut versions = tasks.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, (2..=101).collect::<Vec<_>>());
    let log: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM outbox ORDER BY id").fetch_all(&app.db).await.unwrap();
    assert_eq!(log, (1..=101).collect::<Vec<_>>(), "the log has them in the order of their versions");
}

async fn wait_until_a_change_waits_for_a_lock(app: &TestApp) {
    eventually("it waits for the lock", async || {
        app.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
            .await
            > 0
    })
    .await;
}

#[tokio::test]
async fn a_locked_order_delays_no_other_and_is_changed_when_it_is_free() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    // In the same lane of the writer, whatever the number of lanes.
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(session.place(&order()).await);
    }
    let (held, neighbour) = (placed[0], placed[4]);
    let lock = app.lock_order(held).await;

    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.put(&path(held), &json!({"status": "SHIPPED"})).await }
    });
    wait_until_a_change_waits_for_a_lock(&app).await;
    session.put(&path(neighbour), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    lock.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().expect(StatusCode::OK).json["version"], 2);
    assert_eq!(app.events(held).await, ["OrderCreated 1", "OrderUpdated 2"]);

    // Held for too long, it is 503, and nothing was changed.
    let lock = app.lock_order(held).await;
    let refused = session.put(&path(held), &json!({"status": "DELIVERED"})).await;
    refused.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    lock.rollback().await.unwrap();
    assert_eq!(session.get(&path(held)).await.json["version"], 2);
}

#[tokio::test]
async fn a_change_that_is_refused_after_waiting_for_a_lock_holds_none_when_it_is_answered() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let mut transaction = app.db.begin().await.unwrap();
    sqlx::query("UPDATE orders SET status = 'CANCELLED', version = 2 WHERE id = $1")
        .bind(id)
        .execute(&mut *transaction)
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.put(&path(id), &json!({"status": "SHIPPED"})).await }
    });
    wait_until_a_change_waits_for_a_lock(&app).await;
    transaction.commit().await.unwrap();
    waiting.await.unwrap().expect_problem(StatusCode::CONFLICT, "illegal_transition");
    app.lock_order(id).await;
}
