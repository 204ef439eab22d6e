//! `GET /api/v1/orders`.

use std::collections::HashSet;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    orders_support::order,
    support::{Answer, Session, TestApp},
};

const ORDERS: &str = "/api/v1/orders";

fn ids(answer: &Answer) -> Vec<i64> {
    answer.json["orders"].as_array().unwrap().iter().map(|order| order["id"].as_i64().unwrap()).collect()
}

async fn list(session: &Session, query: &str) -> Answer {
    session.get(&format!("{ORDERS}?{query}")).await.expect(StatusCode::OK)
}

#[tokio::test]
async fn pages_are_newest_first_and_say_whether_more_follow() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut placed = Vec::new();
    for _ in 0..25 {
        placed.push(session.place(&order()).await);
    }
    placed.reverse();
    app.login(2).await.place(&order()).await;

    let first = session.get(ORDERS).await.expect(StatusCode::OK);
    assert_eq!(ids(&first), placed[..10]);
    let one = session.get(&format!("{ORDERS}/{}", placed[0])).await;
    assert_eq!(first.json["orders"][0], one.json, "an order reads the same in the list");
    let facts = |answer: &Answer| {
        ["total", "page", "size", "has_next", "has_prev"].map(|name| answer.json[name].clone())
    };
    assert_eq!(facts(&first), [json!(25), json!(1), json!(10), json!(true), json!(false)]);
    let last = list(&session, "page=3&size=10").await;
    assert_eq!(ids(&last), placed[20..]);
    assert_eq!(facts(&last), [json!(25), json!(3), json!(10), json!(false), json!(true)]);
    assert_eq!(last.json["next_cursor"], Value::Null);
    let beyond = list(&session, "page=9").await;
    assert_eq!((ids(&beyond), &beyond.json["has_next"]), (Vec::new(), &json!(false)));

    let mut cursor = first.json["next_cursor"].as_str().unwrap().to_owned();
    let mut seen = ids(&first);
    loop {
        let page = list(&session, &format!("cursor={cursor}&size=4")).await;
        assert!(page.json.get("total").is_none() && page.json.get("page").is_none());
        assert_eq!(page.json["has_prev"], true);
        seen.extend(ids(&page));
        match page.json["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, placed);
}

#[tokio::test]
async fn every_filter_selects_alone_and_together() {
    let app = TestApp::start().await;
    let (session, admin) = (app.login(1).await, app.login_admin(9).await);
    let place = async |date: &str, product: i64, price: &str| {
        let lines = json!([{"product_id": product, "quantity": 1, "unit_price": price}]);
        session.place(&json!({"order_date": date, "lines": lines})).await
    };
    let a = place("2025-01-01", 1, "10").await;
    let b = place("2025-01-02", 2, "20").await;
    let c = place("2025-01-03", 1, "30").await;
    session.put(&format!("{ORDERS}/{c}"), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    let other = app.login(2).await.place(&order()).await;

    for (query, expected) in [
        ("status=PENDING", vec![b, a]),
        ("status=SHIPPED", vec![c]),
        ("status=CANCELLED", vec![]),
        ("product_id=1", vec![c, a]),
        ("product_id=77", vec![]),
        ("order_date_from=2025-01-02", vec![c, b]),
        ("order_date_to=2025-01-02", vec![b, a]),
        ("order_date_from=2025-01-02&order_date_to=2025-01-02", vec![b]),
        ("min_total=20", vec![c, b]),
        ("min_total=20.01", vec![c]),
        ("max_total=20.00", vec![b, a]),
        ("min_total=15&max_total=25", vec![b]),
        ("product_id=1&status=PENDING&max_total=10&order_date_to=2025-01-01", vec![a]),
        ("customer_id=1", vec![c, b, a]),
    ] {
        let found = list(&session, query).await;
        assert_eq!(ids(&found), expected, "{query}");
        assert_eq!(found.json["total"], expected.len(), "{query}");
    }
    assert_eq!(ids(&list(&admin, "").await), [other, c, b, a]);
    assert_eq!(ids(&list(&admin, "customer_id=2").await), [other]);
    assert_eq!(ids(&list(&admin, "product_id=1&customer_id=1&size=1").await), [c]);
    session.get(&format!("{ORDERS}?customer_id=2")).await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
}

#[tokio::test]
async fn all_errors_of_a_query_are_reported_at_once() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    for (query, faults) in [
        (
            "page=0&size=101&status=NEW&color=red",
            &["?color unknown_field", "?page out_of_range", "?size out_of_range", "?status invalid_value"][..],
        ),
        (
            "page=x&size=1.5&product_id=-1",
            &["?page invalid_type", "?product_id out_of_range", "?size invalid_type"],
        ),
        ("order_date_from=2025-01-02&order_date_to=2025-01-01", &["?order_date_to out_of_range"]),
        ("min_total=2&max_total=1.99", &["?max_total out_of_range"]),
        ("min_total=1.001&max_total=x", &["?max_total invalid_value", "?min_total too_many_decimals"]),
        ("order_date_from=01.02.2025", &["?order_date_from invalid_value"]),
        ("cursor=garbage", &["?cursor invalid_value"]),
        ("cursor=garbage&page=1", &["?cursor invalid_value", "?page invalid_value"]),
        ("size=1&size=2", &["?size duplicate_field"]),
        ("page=1002&size=10", &["?page out_of_range"]),
    ] {
        let refused = session.get(&format!("{ORDERS}?{query}")).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), faults, "{query}");
    }
    let deep = session.get(&format!("{ORDERS}?page={}&size=100", i64::MAX)).await;
    let deep = deep.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert!(deep.json["errors"][0]["detail"].as_str().unwrap().contains("cursor"));
    list(&session, "page=1001&size=10").await;
}

#[tokio::test]
async fn ten_thousand_orders_of_one_moment_are_paged_exactly_once_while_others_are_placed() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    sqlx::query(
        "INSERT INTO orders SELECT g, 1, '2025-01-01', 'PENDING', 1, 1, '2025-01-01Z', '2025-01-01Z' FROM generate_series(1000001, 1010000) g",
    )
    .execute(&app.db)
    .await
    .unwrap();
    let placing = tokio::spawn({
        let session = session.clone();
        async move {
            // Some older than what is paged, some newer: through the API, and with ids on both sides.
            for _ in 0..100 {
                session.place(&order()).await;
            }
        }
    });
    let first = list(&session, "size=100").await;
    assert!(first.json["total"].as_i64().unwrap() >= 10_000);
    let mut seen = ids(&first);
    let mut next = first.json["next_cursor"].as_str().map(str::to_owned);
    while let Some(cursor) = next {
        let page = list(&session, &format!("size=100&cursor={cursor}")).await;
        seen.extend(ids(&page));
        next = page.json["next_cursor"].as_str().map(str::to_owned);
    }
    placing.await.unwrap();
    let old: Vec<i64> = seen.iter().copied().filter(|id| *id > 1_000_000).collect();
    assert_eq!(old, (1_000_001..=1_010_000).rev().collect::<Vec<_>>());
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "none is shown twice");
}

#[tokio::test]
async fn total_is_exact_up_to_its_bound() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let insert = async |first: i64, last: i64| {
        sqlx::query("INSERT INTO orders SELECT g, 1, '2025-01-01', 'PENDING', 1, 1, '2025-01-01Z', '2025-01-01Z' FROM generate_series($1, $2) g")
            .bind(first)
            .bind(last)
            .execute(&app.db)
            .await
            .unwrap();
    };
    insert(1, 9999).await;
    assert_eq!(list(&session, "").await.json["total"], 9999);
    assert_eq!(list(&session, "status=PENDING").await.json["total"], 9999);
    insert(10_000, 12_000).await;
    assert_eq!(list(&session, "").await.json["total"], 10_000);
    assert_eq!(list(&session, "min_total=1").await.json["total"], 10_000);
    assert_eq!(list(&session, "status=SHIPPED").await.json["total"], 0);
}

#[tokio::test]
async fn a_cursor_stays_valid_when_its_order_is_deleted() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(session.place(&order()).await);
    }
    let first = list(&session, "size=2").await;
    let last = *ids(&first).last().unwrap();
    session.delete(&format!("{ORDERS}/{last}")).await.expect(StatusCode::NO_CONTENT);
    let cursor = first.json["next_cursor"].as_str().unwrap();
    let rest = list(&session, &format!("cursor={cursor}")).await;
    assert_eq!(ids(&rest), [placed[2], placed[1], placed[0]]);
}
