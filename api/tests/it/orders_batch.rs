//! `POST /api/v1/orders/batch`.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testbed::eventually;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    orders_support::{order, path, two_lines},
    support::{Answer, Session, TestApp, answer},
};

const BATCH: &str = "/api/v1/orders/batch";
const ORDERS: &str = "SELECT count(*) FROM orders WHERE tenant_id = 1";

/// A batch of these orders.
fn batch(orders: &[Value], on_error: &str) -> Value {
    json!({"orders": orders, "on_error": on_error})
}

fn bad_order() -> Value {
    json!({"order_date": "2025-01-20", "lines": [{"product_id": 1, "quantity": 0, "unit_price": "1.00"}]})
}

impl Session {
    async fn send_batch(&self, key: &str, body: &Value) -> Answer {
        self.send(Method::POST, BATCH, &[("idempotency-key", key)], Some(body)).await
    }
}

fn statuses(answer: &Answer) -> Vec<i64> {
    let results = answer.json["results"].as_array().expect("results");
    results.iter().map(|result| result["status"].as_i64().expect("a status")).collect()
}

fn ids(answer: &Answer) -> Vec<i64> {
    let results = answer.json["results"].as_array().expect("results");
    results.iter().filter_map(|result| result["order"]["id"].as_i64()).collect()
}

#[tokio::test]
async fn a_batch_places_its_orders_and_returns_each_in_their_order() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    for on_error in ["abort", "skip"] {
        let orders: Vec<Value> = ["2025-01-01", "2025-01-02", "2025-01-03"]
            .iter()
            .map(|date| json!({"order_date": date, "lines": two_lines()}))
            .collect();
        let placed = session.post(BATCH, &batch(&orders, on_error)).await.expect(StatusCode::OK);
        assert_eq!((&placed.json["created"], &placed.json["failed"]), (&json!(3), &json!(0)));
        for (result, sent) in placed.json["results"].as_array().unwrap().iter().zip(&orders) {
            assert_eq!(result["status"], 201);
            assert_eq!(result["order"]["order_date"], sent["order_date"]);
            let id = result["order"]["id"].as_i64().unwrap();
            assert_eq!(session.get(&path(id)).await.expect(StatusCode::OK).json, result["order"]);
            assert_eq!(app.events(id).await, ["OrderCreated 1"]);
        }
    }
}

#[tokio::test]
async fn one_bad_order_places_none_and_the_errors_of_all_have_their_pointers() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let orders = [order(), bad_order(), json!({"order_date": "2025-01-20", "colour": 1}), json!([])];
    for body in [batch(&orders, "abort"), json!({"orders": orders})] {
        let refused = session.post(BATCH, &body).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(
            refused.faults(),
            [
                "/orders/1/lines/0/quantity out_of_range",
                "/orders/2/colour unknown_field",
                "/orders/2/lines required",
                "/orders/3 invalid_type",
            ]
        );
    }
    assert_eq!(app.count(ORDERS).await, 0);
}

#[tokio::test]
async fn with_skip_a_bad_order_is_its_own_result() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut foreign = order();
    foreign["customer_id"] = json!(2);
    let body = batch(&[order(), bad_order(), foreign, order()], "skip");
    let placed = session.post(BATCH, &body).await.expect(StatusCode::OK);
    assert_eq!(statuses(&placed), [201, 422, 403, 201]);
    assert_eq!((&placed.json["created"], &placed.json["failed"]), (&json!(2), &json!(2)));
    let problem = &placed.json["results"][1]["problem"];
    assert_eq!(problem["errors"][0]["pointer"], "/orders/1/lines/0/quantity");
    assert_eq!((&problem["code"], &problem["instance"]), (&json!("validation_failed"), &json!(BATCH)));
    assert_eq!(problem["request_id"].as_str(), placed.header("x-request-id"));
    assert_eq!(placed.json["results"][2]["problem"]["code"], "forbidden");
    assert_eq!(app.count(ORDERS).await, 2);
}

#[tokio::test]
async fn an_order_for_another_customer_is_forbidden_and_an_admin_places_for_all() {
    let app = TestApp::start().await;
    let orders: Vec<Value> = (2..4)
        .map(|id| json!({"customer_id": id, "order_date": "2025-01-20", "lines": two_lines()}))
        .collect();
    let body = batch(&orders, "abort");
    let refused = app.login(2).await.post(BATCH, &body).await;
    refused.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    assert_eq!(app.count(ORDERS).await, 0);
    app.login_admin(1).await.post(BATCH, &body).await.expect(StatusCode::OK);
    assert_eq!(app.count("SELECT sum(customer_id)::bigint FROM orders WHERE tenant_id = 1").await, 5);
}

#[tokio::test]
async fn with_abort_the_key_stands_for_the_whole_request() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let body = batch(&[order(), order()], "abort");
    let first = session.send_batch("k", &body).await.expect(StatusCode::OK);
    let again = session.send_batch("k", &body).await.expect(StatusCode::OK);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(first.bytes, again.bytes);
    let other = session.send_batch("k", &batch(&[order()], "abort")).await;
    other.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    assert_eq!(app.count(ORDERS).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_batches_that_are_sent_at_once_are_placed_once() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let body = batch(&[order(), order()], "abort");
    let answers = join_all((0..4).map(|_| session.send_batch("k", &body))).await;
    for answer in answers {
        // A server that is very busy may answer that the first one is still running.
        assert!([StatusCode::OK, StatusCode::CONFLICT].contains(&answer.status), "{answer:?}");
    }
    session.send_batch("k", &body).await.expect(StatusCode::OK);
    assert_eq!(app.count(ORDERS).await, 2);
}

#[tokio::test]
async fn with_skip_a_repetition_places_what_is_missing() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let first = session.send_batch("k", &batch(&[order(), bad_order(), order()], "skip")).await;
    assert_eq!(statuses(&first), [201, 422, 201]);
    let again = session.send_batch("k", &batch(&[order(), order(), order()], "skip")).await;
    assert_eq!(statuses(&again), [201, 201, 201]);
    let replayed = |index: usize| again.json["results"][index]["replayed"].clone();
    assert_eq!([replayed(0), replayed(1), replayed(2)], [json!(true), Value::Null, json!(true)]);
    assert_eq!([ids(&first)[0], ids(&first)[1]], [ids(&again)[0], ids(&again)[2]]);
    let mut other = order();
    other["order_date"] = json!("2025-01-19");
    let reused = session.send_batch("k", &batch(&[other], "skip")).await;
    assert_eq!(reused.json["results"][0]["problem"]["code"], "idempotency_key_reused");
    assert_eq!(app.count(ORDERS).await, 3);
}

#[tokio::test]
async fn an_order_that_postgresql_refuses_takes_the_others_with_it() {
    let app = TestApp::start().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'unlucky'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW
             WHEN (NEW.order_date = '2013-01-13') EXECUTE FUNCTION refuse()",
    )
    .execute(&app.db)
    .await
    .expect("a trigger");
    let session = app.login(1).await;
    let mut unlucky = order();
    unlucky["order_date"] = json!("2013-01-13");
    let body = batch(&[order(), unlucky], "abort");
    let failed = session.send_batch("k", &body).await;
    failed.expect_problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error");
    let written =
        "SELECT (SELECT count(*) FROM orders WHERE tenant_id = 1) + (SELECT count(*) FROM idempotency_keys)
                          + (SELECT count(*) FROM outbox)";
    assert_eq!(app.count(written).await, 0);
    sqlx::raw_sql("DROP TRIGGER refuse ON orders").execute(&app.db).await.expect("it goes");
    session.send_batch("k", &body).await.expect(StatusCode::OK);
    assert_eq!(app.count(ORDERS).await, 2);
}

#[tokio::test]
async fn a_batch_has_1_to_100_orders_and_nothing_unknown() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let many: Vec<Value> = (0..101).map(|_| order()).collect();
    for (body, fault) in [
        (batch(&[], "skip"), "/orders invalid_length"),
        (batch(&many, "skip"), "/orders invalid_length"),
        (json!({"on_error": "skip"}), "/orders required"),
        (batch(&[order()], "ignore"), "/on_error invalid_value"),
        (json!({"orders": [order()], "order": 1}), "/order unknown_field"),
    ] {
        let refused = session.post(BATCH, &body).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), [fault]);
    }
}

#[tokio::test]
async fn a_hundred_of_the_largest_orders_are_one_batch() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let line = json!({"product_id": i64::MAX, "quantity": 1000, "unit_price": "999999.99"});
    let largest = json!({"customer_id": 1, "order_date": "2025-01-20", "lines": vec![line; 50]});
    for on_error in ["abort", "skip"] {
        let body = batch(&vec![largest.clone(); 100], on_error);
        let placed = session.send_batch(on_error, &body).await.expect(StatusCode::OK);
        assert_eq!(placed.json["created"], 100);
        assert_eq!(placed.json["results"][99]["order"]["total_amount"], "49999999500.00");
    }
    assert_eq!(app.count("SELECT count(*) FROM order_lines WHERE tenant_id = 1").await, 10_000);
}

#[tokio::test]
async fn more_batches_than_can_run_at_a_time_are_refused_before_anything_is_placed() {
    let app = TestApp::with().tune(|config| config.http.bulk.batches = 0).start().await;
    let session = app.login(1).await;
    let refused = session.post(BATCH, &batch(&[order()], "abort")).await;
    let refused = refused.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(app.count(ORDERS).await, 0);
}

#[tokio::test]
async fn a_batch_keeps_its_place_until_it_is_written_also_if_its_client_has_gone() {
    let app = TestApp::with().tune(|config| config.http.bulk.batches = 1).start().await;
    let session = app.login(1).await;
    let body = batch(&[order()], "abort");
    // It waits for a lock for two seconds. A machine that is too busy for what happens meanwhile begins again.
    for round in 1.. {
        let placed = app.count(ORDERS).await;
        let refused = answer_beside_a_batch_without_client(&app, &session, &body).await;
        eventually("there is a place again", async || {
            session.post(BATCH, &body).await.status == StatusCode::OK
        })
        .await;
        let is_refused = refused.as_ref().is_some_and(|answer| {
            answer.status == StatusCode::SERVICE_UNAVAILABLE
                && answer.json["detail"].as_str().is_some_and(|detail| detail.contains("as many batches"))
        });
        if is_refused && app.count(ORDERS).await == placed + 2 {
            return;
        }
        assert!(round < 5, "{refused:?}");
    }
}

/// Sends a batch that has to wait, hangs up, and returns the answer to the next one; `None` if the first was answered before.
async fn answer_beside_a_batch_without_client(
    app: &TestApp,
    session: &Session,
    body: &Value,
) -> Option<Answer> {
    let mut holder = app.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE order_lines IN EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
    let request = session.request(Method::POST, BATCH).json(body).build().unwrap();
    let (token, text) = (request.headers()["authorization"].to_str().unwrap(), body.to_string());
    let mut client = TcpStream::connect(app.app.addr).await.unwrap();
    let head = format!(
        "POST {BATCH} HTTP/1.1\r\nhost: orders\r\nauthorization: {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    client.write_all((head + &text).as_bytes()).await.unwrap();
    let waits = eventually("its orders wait for the lock", async || {
        app.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await == 1
    });
    let _too_late = tokio::time::timeout(Duration::from_secs(2), waits).await;
    // It hangs up, and the API notices.
    client.shutdown().await.unwrap();
    let received = client.read_to_end(&mut Vec::new()).await.unwrap();
    let next = session.post(BATCH, body).await;
    holder.rollback().await.unwrap();
    (received == 0).then_some(next)
}

#[tokio::test]
async fn a_key_that_one_kind_of_request_has_used_is_refused_for_the_others() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let (all, each) = (batch(&[order()], "abort"), batch(&[order()], "skip"));
    let import = async |key| {
        let headers = [("idempotency-key", key), ("content-type", "application/x-ndjson")];
        let request = headers
            .iter()
            .fold(session.request(Method::POST, "/api/v1/orders/import"), |request, (name, value)| {
                request.header(*name, *value)
            });
        answer(request.body(order().to_string())).await
    };
    let create = async |key| {
        session.send(Method::POST, "/api/v1/orders", &[("idempotency-key", key)], Some(&order())).await
    };
    session.send_batch("all", &all).await.expect(StatusCode::OK);
    session.send_batch("each", &each).await.expect(StatusCode::OK);
    import("file").await.expect(StatusCode::OK);
    create("one").await.expect(StatusCode::CREATED);
    let orders = app.count(ORDERS).await;

    let mut refused = Vec::new();
    for key in ["all", "file", "one"] {
        refused.push(session.send_batch(key, &each).await);
    }
    for key in ["each", "file", "one"] {
        refused.push(session.send_batch(key, &all).await);
    }
    for key in ["all", "each", "one"] {
        refused.push(import(key).await);
    }
    for key in ["all", "each", "file"] {
        refused.push(create(key).await);
    }
    for answer in refused {
        answer.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    }
    assert_eq!(app.count(ORDERS).await, orders);
}
