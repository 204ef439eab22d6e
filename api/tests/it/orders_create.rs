//! `POST /api/v1/orders`.

use std::fmt::Write as _;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::{clock::Clock, event::Event};
use time::macros::datetime;

use crate::{
    orders_support::{order, path, two_lines},
    support::{TestApp, answer},
};

const ORDERS: &str = "/api/v1/orders";

#[tokio::test]
async fn an_order_is_returned_stored_and_written_to_the_log() {
    let app = TestApp::start().await;
    let session = app.login(123).await;
    let created = session.post(ORDERS, &order()).await.expect(StatusCode::CREATED);

    assert_eq!(created.header("etag"), Some("\"1\""));
    assert_eq!(created.header("content-type"), Some("application/json"));
    let mut expected = json!({
        "id": 1, "customer_id": 123, "order_date": "2025-01-20", "status": "PENDING", "total_amount": "66.00", "version": 1,
        "created_at": created.json["created_at"], "updated_at": created.json["created_at"],
        "lines": [
            {"id": 1, "product_id": 1001, "quantity": 2, "unit_price": "25.50"},
            {"id": 2, "product_id": 1002, "quantity": 1, "unit_price": "15.00"},
        ],
        "reference": null, "metadata": {},
    });
    assert_eq!(created.json, expected);
    assert_eq!(created.header("location"), Some("/api/v1/orders/1"));

    let found = session.get(&path(1)).await.expect(StatusCode::OK);
    assert_eq!(found.bytes, created.bytes, "the answer is the same byte for byte");
    assert_eq!(found.header("etag"), Some("\"1\""));

    let payload: String = sqlx::query_scalar("SELECT payload FROM outbox").fetch_one(&app.db).await.unwrap();
    let event = Event::read(&payload.clone().into()).unwrap();
    assert_eq!(event.data.version, 1);
    assert_eq!(event.data.performed_by.get(), 123);
    let event: Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(event["type"], "OrderCreated");
    assert_eq!(event["data"]["order"], expected);
    let changes = &event["data"]["changes"];
    assert_eq!(changes["total_amount"], json!({"from": null, "to": "66.00"}));
    assert_eq!(changes["lines"], json!({"from": null, "to": expected["lines"].take()}));
}

#[tokio::test]
async fn all_errors_are_reported_at_once() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let body = json!({
        "customer_id": 0, "order_date": "2025-02-30", "status": "SHIPPED", "color": "red", "total_amount": "1.00",
        "lines": [
            {"product_id": 0, "quantity": 0, "unit_price": -0.01},
            {"product_id": "1", "quantity": 1001, "unit_price": 1_000_000, "discount": 1},
            {"product_id": 1, "quantity": 1.5, "unit_price": "25.505"},
            7,
        ],
    });
    let refused = session.post(ORDERS, &body).await;
    let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(
        refused.faults(),
        [
            "/color unknown_field",
            "/customer_id out_of_range",
            "/lines/0/product_id out_of_range",
            "/lines/0/quantity out_of_range",
            "/lines/0/unit_price out_of_range",
            "/lines/1/discount unknown_field",
            "/lines/1/product_id invalid_type",
            "/lines/1/quantity out_of_range",
            "/lines/1/unit_price out_of_range",
            "/lines/2/quantity invalid_type",
            "/lines/2/unit_price too_many_decimals",
            "/lines/3 invalid_type",
            "/order_date invalid_value",
            "/status invalid_value",
            "/total_amount unknown_field",
        ]
    );
    let empty = session.post(ORDERS, &json!({})).await;
    let empty = empty.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(empty.faults(), ["/lines required", "/order_date required"]);
    assert_eq!(app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 0);
}

#[tokio::test]
async fn an_order_has_one_to_fifty_lines() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let line = json!({"product_id": 1, "quantity": 1, "unit_price": 1});
    for (count, status) in [(0, 422), (1, 201), (50, 201), (51, 422)] {
        let body = json!({"order_date": "2025-01-20", "lines": vec![&line; count]});
        assert_eq!(session.post(ORDERS, &body).await.status.as_u16(), status, "{count} lines");
    }
}

#[tokio::test]
async fn money_is_exact_from_the_socket_to_the_column() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let place = async |price: &str| {
        let body = format!(
            r#"{{"order_date":"2025-01-20","lines":[{{"product_id":1,"quantity":3,"unit_price":{price}}}]}}"#
        );
        let request = session.request(Method::POST, ORDERS).header("content-type", "application/json");
        answer(request.body(body)).await
    };
    for (price, exact, total) in [
        ("0.1", "0.10", "0.30"),
        ("25.5", "25.50", "76.50"),
        ("25.500", "25.50", "76.50"),
        ("\"25.50\"", "25.50", "76.50"),
        ("1e2", "100.00", "300.00"),
        ("2.55E+1", "25.50", "76.50"),
        ("-0", "0.00", "0.00"),
        ("-0.0", "0.00", "0.00"),
        ("999999.99", "999999.99", "2999999.97"),
        ("1.10000000000000000000000000000000000000000", "1.10", "3.30"),
        ("\"1.10000000000000000000000000000000000000000\"", "1.10", "3.30"),
        ("100000000000000000000000000000000000000000e-41", "1.00", "3.00"),
    ] {
        let placed = place(price).await.expect(StatusCode::CREATED);
        assert_eq!(placed.json["lines"][0]["unit_price"], exact, "{price}");
        assert_eq!(placed.json["total_amount"], total, "{price}");
        let stored: (String, String) = sqlx::query_as(
            "SELECT unit_price::text, total_amount::text FROM order_lines l JOIN orders o ON o.id = order_id WHERE o.tenant_id = 1 ORDER BY o.id DESC LIMIT 1",
        )
        .fetch_one(&app.db)
        .await
        .unwrap();
        assert_eq!(stored, (exact.to_owned(), total.to_owned()), "{price}");
    }
    for (price, code) in [
        ("25.505", "too_many_decimals"),
        ("0.1000000000000000055", "too_many_decimals"),
        ("1.00000000000000000000000000000000000000001", "too_many_decimals"),
        ("1e400", "out_of_range"),
        ("10000000000000000000000000000000000000000", "out_of_range"),
        ("\"1e400\"", "out_of_range"),
        ("\"1,50\"", "invalid_value"),
        ("\"5.\"", "invalid_value"),
        ("\".5\"", "invalid_value"),
        ("\"12abc\"", "invalid_value"),
        ("\"1 000\"", "invalid_value"),
        ("1000000", "out_of_range"),
        ("\"\"", "invalid_value"),
        ("\"abc\"", "invalid_value"),
        ("true", "invalid_type"),
        ("null", "invalid_type"),
    ] {
        let refused =
            place(price).await.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), [format!("/lines/0/unit_price {code}")], "{price}");
    }
}

#[tokio::test]
async fn the_largest_order_can_be_stored() {
    let app = TestApp::start().await;
    let session = app.login(i64::MAX).await;
    let line = json!({"product_id": i64::MAX, "quantity": 1000, "unit_price": "999999.99"});
    let body = json!({"order_date": "2025-01-20", "lines": vec![&line; 50]});
    let created = session.post(ORDERS, &body).await.expect(StatusCode::CREATED);
    assert_eq!(created.json["total_amount"], "49999999500.00");
    let id = created.json["id"].as_i64().unwrap();
    assert_eq!(session.get(&path(id)).await.bytes, created.bytes);
}

#[tokio::test]
async fn the_date_is_at_most_today_anywhere_on_earth() {
    // Noon in UTC is two in the morning of the next day on the Line Islands.
    let clock = Clock::manual(datetime!(2025-06-01 12:00 UTC));
    let app = TestApp::with().clock(&clock).start().await;
    let session = app.login(1).await;
    for (date, status) in [
        ("2025-06-02", 201),
        ("2025-06-03", 422),
        ("0001-01-01", 201),
        ("2025-6-1", 422),
        ("2025-06-01T00:00:00Z", 422),
    ] {
        let body = json!({"order_date": date, "lines": two_lines()});
        assert_eq!(session.post(ORDERS, &body).await.status.as_u16(), status, "{date}");
    }
}

#[tokio::test]
async fn a_customer_places_orders_for_itself_and_an_administrator_for_others() {
    let app = TestApp::start().await;
    let (customer, admin) = (app.login(7).await, app.login_admin(1).await);
    let order_of = |id: i64| json!({"customer_id": id, "order_date": "2025-01-20", "lines": two_lines()});
    customer.post(ORDERS, &order_of(7)).await.expect(StatusCode::CREATED);
    customer.post(ORDERS, &order_of(8)).await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    let placed = admin.post(ORDERS, &order_of(8)).await.expect(StatusCode::CREATED);
    assert_eq!(placed.json["customer_id"], 8);
    let unnamed = admin.post(ORDERS, &order()).await;
    let unnamed = unnamed.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(unnamed.faults(), ["/customer_id required"]);
}

#[tokio::test]
async fn what_is_not_json_is_400_and_what_is_too_large_is_413() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let post = |body: String| {
        let request = session.request(Method::POST, ORDERS).header("content-type", "application/json");
        answer(request.body(body))
    };
    post("{".to_owned()).await.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
    let mut large = String::from("{\"x\":\"");
    write!(large, "{}", "x".repeat(256 * 1024)).unwrap();
    post(large).await.expect_problem(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
    let text = session.request(Method::POST, ORDERS).header("content-type", "text/plain").body("{}");
    answer(text).await.expect_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
    app.post(ORDERS, &order()).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

#[tokio::test]
async fn a_thousand_orders_at_once_are_all_stored_with_ids_of_their_own() {
    let app = TestApp::start().await;
    let session = app.login(5).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let session = session.clone();
        tasks.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..50 {
                ids.push(session.place(&order()).await);
            }
            ids
        });
    }
    let mut ids: Vec<i64> = tasks.join_all().await.concat();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1000);
    assert_eq!(app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await, 1000);
    assert_eq!(app.count("SELECT count(*) FROM order_lines WHERE tenant_id = 1").await, 2000);
    assert_eq!(app.count("SELECT count(DISTINCT order_id) FROM outbox").await, 1000);
}
