//! `Idempotency-Key`.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::{Duration, macros::datetime};

use crate::{
    orders_support::{order, path, two_lines},
    support::{Answer, Session, TestApp},
};

const ORDERS: &str = "/api/v1/orders";

async fn post(session: &Session, key: &str, body: &Value) -> Answer {
    session.send(Method::POST, ORDERS, &[("idempotency-key", key)], Some(body)).await
}

#[tokio::test]
async fn two_hundred_equal_posts_at_once_make_one_order_one_event_and_equal_responses() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let here = app.login(1).await;
    let (there, body) = (replica.session(&here), order());
    let sent = (0..200).map(|number| {
        let session = if number % 2 == 0 { &here } else { &there };
        session.post_with_key(ORDERS, "the-key", &body)
    });
    let answers = futures_util::future::join_all(sent).await;
    let first = &answers[0];
    let mut fresh = 0;
    for answer in &answers {
        let text = String::from_utf8_lossy(&answer.bytes);
        assert_eq!(answer.status, StatusCode::CREATED, "{text}");
        assert_eq!(answer.bytes, first.bytes);
        for name in ["etag", "location", "content-type"] {
            assert_eq!(answer.header(name), first.header(name), "{name}");
        }
        fresh += usize::from(answer.header("idempotent-replayed").is_none());
    }
    assert_eq!(fresh, 1, "all others are marked as replayed");
    for sql in [
        "SELECT count(*) FROM orders WHERE tenant_id = 1",
        "SELECT count(*) FROM outbox",
        "SELECT count(*) FROM idempotency_keys",
    ] {
        assert_eq!(app.count(sql).await, 1, "{sql}");
    }
}

#[tokio::test]
async fn equal_requests_are_those_that_mean_the_same() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let first = post(&session, "k", &order()).await.expect(StatusCode::CREATED);
    let same = json!({"customer_id": 1, "status": "PENDING", "lines": [
        {"unit_price": "25.5", "quantity": 2, "product_id": 1001},
        {"unit_price": "15.00", "quantity": 1, "product_id": 1002},
    ], "order_date": "2025-01-20"});
    // A quoted key is the same key.
    let again = post(&session, "\"k\"", &same).await.expect(StatusCode::CREATED);
    assert_eq!(again.bytes, first.bytes);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));

    let other = json!({"order_date": "2025-01-19", "lines": two_lines()});
    post(&session, "k", &other)
        .await
        .expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    let id = first.json["id"].as_i64().unwrap();
    for method in [Method::PUT, Method::PATCH] {
        let reused = session.send(method, &path(id), &[("idempotency-key", "k")], Some(&json!({}))).await;
        reused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    }
    let reused = session.send(Method::DELETE, &path(id), &[("idempotency-key", "k")], None).await;
    reused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    assert_eq!(session.get(&path(id)).await.json["version"], 1);
}

#[tokio::test]
async fn a_key_belongs_to_the_customer_and_survives_the_token() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let first = post(&session, "k", &order()).await.expect(StatusCode::CREATED);
    let later = app.login(1).await;
    assert_eq!(post(&later, "k", &order()).await.expect(StatusCode::CREATED).bytes, first.bytes);
    let other = app.login(2).await;
    let theirs = post(&other, "k", &order()).await.expect(StatusCode::CREATED);
    assert_ne!(theirs.json["id"], first.json["id"]);
    assert_eq!(theirs.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn a_repeated_change_gets_the_same_response_whatever_happened_since() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let confirm = json!({"status": "CONFIRMED"});
    let key = [("idempotency-key", "confirm"), ("if-match", "\"1\"")];
    let first = session.send(Method::PUT, &path(id), &key, Some(&confirm)).await.expect(StatusCode::OK);
    session.put(&path(id), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    let again = session.send(Method::PUT, &path(id), &key, Some(&confirm)).await.expect(StatusCode::OK);
    assert_eq!((&again.bytes, again.header("etag")), (&first.bytes, Some("\"2\"")));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));

    let key = [("idempotency-key", "delete")];
    session.send(Method::DELETE, &path(id), &key, None).await.expect(StatusCode::NO_CONTENT);
    let again = session.send(Method::DELETE, &path(id), &key, None).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(app.events(id).await.len(), 4);
}

#[tokio::test]
async fn a_key_covers_the_preconditions_and_the_role() {
    let app = TestApp::start().await;
    let (owner, other) = (app.login(1).await, app.login(2).await);
    // An administrator with the number of a customer.
    let admin = app.login_admin(2).await;
    let id = owner.place(&order()).await;
    let confirm = json!({"status": "CONFIRMED"});
    let put = async |session: &Session, key: &str, conditions: &[(&str, &str)]| {
        let headers = [conditions, &[("idempotency-key", key)]].concat();
        session.send(Method::PUT, &path(id), &headers, Some(&confirm)).await
    };
    put(&owner, "stale", &[("if-match", "\"7\"")]).await.expect(StatusCode::PRECONDITION_FAILED);
    for conditions in [
        &[("if-match", "\"1\"")][..],
        &[],
        &[("if-none-match", "\"7\"")],
        &[("if-match", "\"7\""), ("if-none-match", "\"8\"")],
        &[("if-match", "W/\"7\"")],
    ] {
        let reused = put(&owner, "stale", conditions).await;
        reused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    }
    let again =
        put(&owner, "stale", &[("if-match", " \"7\" ")]).await.expect(StatusCode::PRECONDITION_FAILED);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));

    put(&admin, "k", &[]).await.expect(StatusCode::OK);
    let reused = put(&other, "k", &[]).await;
    let reused = reused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    assert!(!reused.json.to_string().contains("CONFIRMED"), "{}", reused.json);
    put(&admin, "k", &[]).await.expect(StatusCode::OK);
    // The other way round a customer's 404 is not the administrator's answer.
    put(&other, "mine", &[]).await.expect(StatusCode::NOT_FOUND);
    let reused = put(&admin, "mine", &[]).await;
    reused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    let conditions = [("idempotency-key", "new"), ("if-match", "*")];
    owner.send(Method::POST, ORDERS, &conditions, Some(&order())).await.expect(StatusCode::CREATED);
    let reused = post(&owner, "new", &order()).await;
    reused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
}

#[tokio::test]
async fn a_response_that_an_older_version_stored_is_repeated_to_those_who_can_see_its_order() {
    let app = TestApp::start().await;
    let (owner, other, admin) = (app.login(1).await, app.login(2).await, app.login_admin(2).await);
    let id = owner.place(&order()).await;
    let conditions = [("idempotency-key", "confirm"), ("if-match", "\"1\"")];
    let confirm = json!({"status": "CONFIRMED"});
    let first = owner.send(Method::PUT, &path(id), &conditions, Some(&confirm)).await.expect(StatusCode::OK);
    let key = [("idempotency-key", "ship")];
    let ship = json!({"status": "SHIPPED"});
    let shipped = admin.send(Method::PUT, &path(id), &key, Some(&ship)).await.expect(StatusCode::OK);
    sqlx::query("UPDATE idempotency_keys SET context_hash = NULL").execute(&app.db).await.unwrap();

    let again = owner.send(Method::PUT, &path(id), &conditions, Some(&confirm)).await.expect(StatusCode::OK);
    assert_eq!((&again.bytes, again.header("idempotent-replayed")), (&first.bytes, Some("true")));
    let again = admin.send(Method::PUT, &path(id), &key, Some(&ship)).await.expect(StatusCode::OK);
    assert_eq!((&again.bytes, again.header("idempotent-replayed")), (&shipped.bytes, Some("true")));
    let disclosed = other.send(Method::PUT, &path(id), &key, Some(&ship)).await;
    disclosed.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    // The order is gone, and its owner stands in the answer.
    owner.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    let disclosed = other.send(Method::PUT, &path(id), &key, Some(&ship)).await;
    disclosed.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
}

#[tokio::test]
async fn refusals_because_of_the_order_are_stored_and_those_of_the_request_are_not() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let kept = async |key: &str, id: i64, headers: &[(&str, &str)], body: Value, status: u16| {
        let headers = [headers, &[("idempotency-key", key)]].concat();
        let first = session.send(Method::PATCH, &path(id), &headers, Some(&body)).await;
        assert_eq!(first.status.as_u16(), status);
        assert_eq!(first.header("idempotent-replayed"), None);
        let again = session.send(Method::PATCH, &path(id), &headers, Some(&body)).await;
        assert_eq!(again.status.as_u16(), status);
        assert_eq!(again.bytes, first.bytes, "byte for byte, with the id of the first request");
        assert_eq!(again.header("content-type"), first.header("content-type"));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    };
    kept("illegal", id, &[], json!({"status": "DELIVERED"}), 409).await;
    kept("stale", id, &[("if-match", "\"7\"")], json!({"status": "SHIPPED"}), 412).await;
    kept("missing", 999, &[], json!({"status": "SHIPPED"}), 404).await;
    kept("unchanged", id, &[], json!({}), 200).await;
    // The state moves on; the kept answers stay.
    session.put(&path(id), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    let headers = [("idempotency-key", "illegal")];
    let again = session.send(Method::PATCH, &path(id), &headers, Some(&json!({"status": "DELIVERED"}))).await;
    assert_eq!(again.status, StatusCode::CONFLICT);

    let wrong = json!({"order_date": "2025-01-20", "lines": []});
    post(&session, "fix-me", &wrong).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    post(&session, "fix-me", &order()).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_malformed_key_is_400() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let too_long = "x".repeat(256);
    for key in ["", "a b", "\"open", &too_long] {
        post(&session, key, &order()).await.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
    }
    assert_eq!(app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await, 0);
}

/// Makes the response under the key "k" older, by the clock of PostgreSQL.
async fn make_older(app: &TestApp, seconds: i32) {
    sqlx::query(
        "UPDATE idempotency_keys SET created_at = created_at - make_interval(secs => $1) WHERE key = 'k'",
    )
    .bind(f64::from(seconds))
    .execute(&app.db)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_key_lives_a_day_and_is_then_removed_in_small_batches() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let first = post(&session, "k", &order()).await.expect(StatusCode::CREATED);
    // A minute is left, for a busy machine.
    make_older(&app, 24 * 3600 - 60).await;
    assert_eq!(post(&session, "k", &order()).await.bytes, first.bytes);
    make_older(&app, 60).await;
    // Expired, though nothing has removed it: as if it had never been.
    let second = post(&session, "k", &order()).await.expect(StatusCode::CREATED);
    assert_ne!(second.json["id"], first.json["id"]);
    assert_eq!(second.header("idempotent-replayed"), None);
    assert_eq!(app.count("SELECT count(*) FROM idempotency_keys").await, 1);

    sqlx::query(
        "INSERT INTO idempotency_keys SELECT 5, g::text, '\\x00', 201, '[]', '', timestamptz '2025-01-01' FROM generate_series(1, 700) g",
    )
    .execute(&app.db)
    .await
    .unwrap();
    let db = shared::platform::db::DbPool::from(app.db.clone());
    let mut removed = Vec::new();
    for _ in 0..3 {
        removed.push(api::orders::expire_once(&db).await.unwrap());
    }
    assert_eq!(removed, [500, 200, 0]);
    assert_eq!(app.count("SELECT count(*) FROM idempotency_keys").await, 1, "the living one stays");
}

#[tokio::test]
async fn a_wrong_clock_of_the_api_ends_no_key() {
    let clock = Clock::manual(datetime!(2025-06-01 12:00 UTC));
    let app = TestApp::with().clock(&clock).start().await;
    let first = post(&app.login(1).await, "k", &order()).await.expect(StatusCode::CREATED);
    clock.advance(Duration::days(2));
    let again = post(&app.login(1).await, "k", &order()).await.expect(StatusCode::CREATED);
    assert_eq!(again.bytes, first.bytes);
    let db = shared::platform::db::DbPool::from(app.db.clone());
    assert_eq!(api::orders::expire_once(&db).await.unwrap(), 0);
}

#[tokio::test]
async fn a_key_held_by_an_unfinished_transaction_is_409_and_its_neighbours_are_served() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut transaction = app.db.begin().await.unwrap();
    sqlx::query("INSERT INTO idempotency_keys VALUES (1, 'held', '\\x00', 201, '[]', '')")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let order = order();
    let (held, neighbour) = tokio::join!(post(&session, "held", &order), post(&session, "free", &order));
    let held = held.expect_problem(StatusCode::CONFLICT, "idempotency_in_progress");
    assert_eq!(held.header("retry-after"), Some("1"));
    neighbour.expect(StatusCode::CREATED);
    transaction.rollback().await.unwrap();
    post(&session, "held", &order).await.expect(StatusCode::CREATED);
}
