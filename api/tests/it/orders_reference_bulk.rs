//! References in batches, imports, exports and lists.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    bulk_support::{CSV, EXPORT, NDJSON, json_lines},
    orders_reference::referenced,
    orders_support::{order, path},
    support::{Session, TestApp},
};

const BATCH: &str = "/api/v1/orders/batch";
const ORDERS: &str = "/api/v1/orders";

/// The number of orders in the database.
async fn placed(app: &TestApp) -> i64 {
    app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await
}

#[tokio::test]
async fn with_skip_each_order_of_a_batch_gets_its_reference_or_names_the_one_that_has_it() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let first = session.place(&referenced("A")).await;
    let body =
        json!({"orders": [referenced("B"), referenced("A"), referenced("B"), order()], "on_error": "skip"});
    let key = [("idempotency-key", "k")];
    let send = async || {
        session.send(reqwest::Method::POST, BATCH, &key, Some(&body)).await.expect(StatusCode::OK).json
    };
    let results = send().await;
    let result = |n: usize| results["results"][n].clone();
    assert_eq!((&results["created"], &results["failed"]), (&json!(2), &json!(2)));
    assert_eq!((result(1)["status"].clone(), result(3)["status"].clone()), (json!(409), json!(201)));
    assert_eq!(result(1)["problem"]["order_id"], first);
    // Which of the two has won is not said; the other names it.
    let (won, lost) = if result(0)["status"] == 201 { (0, 2) } else { (2, 0) };
    assert_eq!(result(won)["order"]["reference"], "B");
    assert_eq!(result(lost)["problem"]["code"], "reference_taken");
    assert_eq!(result(lost)["problem"]["order_id"], result(won)["order"]["id"]);

    let again = send().await;
    assert_eq!((&again["created"], &again["failed"]), (&json!(2), &json!(2)));
    for n in 0..4 {
        assert_eq!(again["results"][n]["order"], result(n)["order"]);
        assert_eq!(again["results"][n]["problem"], result(n)["problem"], "also after the first time");
    }
    assert_eq!(placed(&app).await, 3);
}

#[tokio::test]
async fn with_abort_one_reference_that_is_taken_places_no_order_and_all_are_named() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let (a, b) = (session.place(&referenced("A")).await, session.place(&referenced("B")).await);
    let body = json!({"orders": [order(), referenced("A"), referenced("C"), referenced("B")]});
    let send = async |key: &str| {
        session.send(reqwest::Method::POST, BATCH, &[("idempotency-key", key)], Some(&body)).await
    };
    let refused = send("k").await.expect_problem(StatusCode::CONFLICT, "reference_taken");
    assert_eq!(
        refused.faults(),
        ["/orders/1/reference reference_taken", "/orders/3/reference reference_taken"]
    );
    assert_eq!(refused.json["order_id"], a);
    assert_eq!(refused.json["errors"][1]["detail"], format!("order {b} has this reference already"));
    assert_eq!(placed(&app).await, 2);
    for id in [a, b] {
        session.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    }
    let again = send("k").await.expect(StatusCode::CONFLICT);
    assert_eq!((again.bytes.clone(), again.header("idempotent-replayed")), (refused.bytes, Some("true")));
    send("other").await.expect(StatusCode::OK);

    let twice = json!({"orders": [referenced("X"), order(), referenced("X")], "on_error": "abort"});
    let refused = session.post(BATCH, &twice).await;
    let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(refused.faults(), ["/orders/2/reference reference_taken"]);
    assert_eq!(placed(&app).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_batches_with_the_same_references_at_once_one_is_placed() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let here = app.login(1).await;
    let there = replica.session(&here);
    for round in 0..10 {
        let names: Vec<String> = (0..20).map(|n| format!("{round} {n}")).collect();
        let forwards: Vec<Value> = names.iter().map(|name| referenced(name)).collect();
        let backwards: Vec<Value> = names.iter().rev().map(|name| referenced(name)).collect();
        let send =
            async |session: &Session, orders: &[Value]| session.post(BATCH, &json!({"orders": orders})).await;
        let (one, other) = tokio::join!(send(&here, &forwards), send(&there, &backwards));
        let (won, lost) = if one.status == StatusCode::OK { (one, other) } else { (other, one) };
        assert_eq!(won.expect(StatusCode::OK).json["created"], 20);
        let lost = lost.expect_problem(StatusCode::CONFLICT, "reference_taken");
        assert_eq!(lost.faults().len(), 20);
    }
    assert_eq!(placed(&app).await, 200);
}

#[tokio::test]
async fn a_row_of_an_import_whose_reference_is_taken_names_the_order_also_when_it_is_sent_again() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let rows: Vec<String> = ["A", "B", "A", "C"].map(|name| referenced(name).to_string()).into();
    let file = rows.join("\n");
    let first = session.import(NDJSON, Some("k"), file.clone()).await;
    let again = session.import(NDJSON, Some("k"), file).await;
    for imported in [&first, &again] {
        let mut statuses = imported.statuses();
        assert_eq!((statuses[1], statuses[3]), (201, 201));
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 201, 201, 409]);
        let (won, lost) = if imported.rows[0]["status"] == 201 { (0, 2) } else { (2, 0) };
        assert_eq!(imported.rows[lost]["problem"]["order_id"], imported.rows[won]["id"]);
    }
    assert_eq!((&first.end["created"], &first.end["failed"]), (&json!(3), &json!(1)));
    assert_eq!((&again.end["replayed"], &again.end["failed"]), (&json!(3), &json!(1)));
    assert_eq!(first.ids(), again.ids());
}

#[tokio::test]
async fn an_export_has_both_fields_and_can_be_imported_for_another_customer() {
    let app = TestApp::start().await;
    let (one, other) = (app.login(1).await, app.login(2).await);
    let mut own = referenced("=1+\"ä\", 'x'");
    own["metadata"] = json!({"b": "line, \"quoted\"", "a": ""});
    one.place(&own).await;
    one.place(&order()).await;
    for (format, kind) in [("ndjson", NDJSON), ("csv", CSV)] {
        let file = one.get(&format!("{EXPORT}?format={format}")).await.expect(StatusCode::OK);
        let file = String::from_utf8(file.bytes).unwrap();
        // Everything of it belongs to customer 1, which another one may not name.
        let file = file.replace("\"customer_id\":1,", "\"customer_id\":2,").replace(",1,2025", ",2,2025");
        let imported = other.import(kind, None, file).await;
        assert_eq!(imported.statuses(), [201, 201], "{imported:?}");
        let shown = other.get(&path(imported.ids()[1])).await.json;
        assert_eq!((&shown["reference"], &shown["metadata"]), (&own["reference"], &own["metadata"]));
        let shown = other.get(&path(imported.ids()[0])).await.json;
        assert_eq!((&shown["reference"], &shown["metadata"]), (&Value::Null, &json!({})));
        other.delete(&path(imported.ids()[1])).await.expect(StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn list_and_export_filter_by_reference_and_ids() {
    let app = TestApp::start().await;
    let (one, other, admin) = (app.login(1).await, app.login(2).await, app.login_admin(9).await);
    let mut ids = Vec::new();
    for reference in ["A", "B", "C &+"] {
        ids.push(one.place(&referenced(reference)).await);
    }
    let foreign = other.place(&referenced("A")).await;
    let cases = [
        (&one, "reference=A".to_owned(), vec![ids[0]]),
        (&one, "reference=C%20%26%2B".to_owned(), vec![ids[2]]),
        (&one, "reference=a".to_owned(), vec![]),
        (&admin, "reference=A".to_owned(), vec![foreign, ids[0]]),
        (&admin, "reference=A&customer_id=2".to_owned(), vec![foreign]),
        (&one, format!("ids={},{foreign},{},999,{}", ids[0], ids[2], ids[0]), vec![ids[2], ids[0]]),
        (&one, format!("ids={}%2C{}&reference=B", ids[0], ids[1]), vec![ids[1]]),
        (&one, format!("ids={}&status=SHIPPED", ids[0]), vec![]),
        (&one, format!("ids={}&product_id=1001", ids[0]), vec![ids[0]]),
        (&one, format!("ids={}&product_id=7", ids[0]), vec![]),
        (&admin, format!("ids={foreign},{}", ids[0]), vec![foreign, ids[0]]),
        (&one, "ids=9223372036854775807".to_owned(), vec![]),
    ];
    for (session, query, expected) in cases {
        let list = session.get(&format!("{ORDERS}?{query}")).await.expect(StatusCode::OK).json;
        let of = |orders: &Value| -> Vec<i64> {
            orders.as_array().unwrap().iter().map(|order| order["id"].as_i64().unwrap()).collect()
        };
        assert_eq!(
            (of(&list["orders"]), &list["total"]),
            (expected.clone(), &json!(expected.len())),
            "{query}"
        );
        let exported = session.get(&format!("{EXPORT}?{query}")).await.expect(StatusCode::OK);
        let lines = json_lines(&exported.bytes);
        assert_eq!(of(&json!(lines[1..lines.len() - 1])), expected, "{query}");
    }
    // By pages, too.
    let all = format!("ids={},{},{}", ids[0], ids[1], ids[2]);
    let page = one.get(&format!("{ORDERS}?{all}&size=2")).await.expect(StatusCode::OK).json;
    assert_eq!((&page["total"], &page["has_next"]), (&json!(3), &json!(true)));
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = one.get(&format!("{ORDERS}?{all}&size=2&cursor={cursor}")).await.expect(StatusCode::OK).json;
    assert_eq!(rest["orders"][0]["id"], ids[0]);
}

#[tokio::test]
async fn a_list_names_up_to_100_ids_and_a_reference_that_an_order_can_have() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let list = |count: i64| (1..=count).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    session.get(&format!("{ORDERS}?ids={}", list(100))).await.expect(StatusCode::OK);
    for (query, fault) in [
        (format!("ids={}", list(101)), "?ids invalid_length"),
        ("ids=".to_owned(), "?ids invalid_value"),
        ("ids=1,".to_owned(), "?ids invalid_value"),
        ("ids=1,,2".to_owned(), "?ids invalid_value"),
        ("ids=1;2".to_owned(), "?ids invalid_value"),
        ("ids=0".to_owned(), "?ids invalid_value"),
        ("ids=-1".to_owned(), "?ids invalid_value"),
        ("ids=%2B1".to_owned(), "?ids invalid_value"),
        ("ids=1,9223372036854775808".to_owned(), "?ids invalid_value"),
        ("ids=1&ids=2".to_owned(), "?ids duplicate_field"),
        ("reference=".to_owned(), "?reference invalid_length"),
        (format!("reference={}", "a".repeat(65)), "?reference invalid_length"),
        ("reference=+a".to_owned(), "?reference invalid_value"),
        ("reference=a%00b".to_owned(), "?reference invalid_value"),
        ("reference=%FF".to_owned(), "?reference invalid_value"),
    ] {
        for route in [ORDERS, EXPORT] {
            let refused = session.get(&format!("{route}?{query}")).await;
            let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
            assert_eq!(refused.faults(), [fault], "{query}");
        }
    }
}
