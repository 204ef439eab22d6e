//! `metadata`: the client's own data of an order.

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use testbed::eventually;

use crate::{
    bulk_support::{EXPORT, json_lines},
    orders_support::{order, path, two_lines},
    support::{Session, TestApp, answer},
};

const ORDERS: &str = "/api/v1/orders";

/// An order with metadata.
fn with_metadata(metadata: &Value) -> Value {
    json!({"order_date": "2025-01-20", "lines": two_lines(), "metadata": metadata})
}

/// The largest metadata: as many entries as allowed, of the widest characters. The values begin with this one.
pub(crate) fn largest(first: char) -> Value {
    let text = |first: char, length: usize| format!("{first}{}", "\u{1f4e6}".repeat(length - 1));
    let entries: Map<String, Value> =
        ('a'..).take(20).map(|key| (text(key, 40), json!(text(first, 500)))).collect();
    entries.into()
}

#[tokio::test]
async fn metadata_are_shown_as_they_were_given_and_none_is_an_empty_object() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let metadata =
        json!({"z": "last", "a": "", "Straße": "\"quoted\" \\ 📦", "a/b~c": "</script>", " ": " "});
    let placed = session.post(ORDERS, &with_metadata(&metadata)).await.expect(StatusCode::CREATED);
    assert_eq!(placed.json["metadata"], metadata);
    let text = String::from_utf8(placed.bytes).unwrap();
    assert!(text.ends_with(
        r#""metadata":{" ":" ","Straße":"\"quoted\" \\ 📦","a":"","a/b~c":"</script>","z":"last"}}"#
    ));
    let id = placed.json["id"].as_i64().unwrap();
    assert_eq!(session.get(&path(id)).await.json, placed.json);
    let bare = session.post(ORDERS, &order()).await.expect(StatusCode::CREATED);
    assert_eq!(bare.json["metadata"], json!({}));
    let empty = session.post(ORDERS, &with_metadata(&json!({}))).await.expect(StatusCode::CREATED);
    assert_eq!(empty.json["metadata"], json!({}));
}

#[tokio::test]
async fn an_update_replaces_them_as_a_whole_in_every_status() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    for moves in [&[][..], &["CONFIRMED"], &["SHIPPED", "DELIVERED"], &["CANCELLED"]] {
        let id = session.place(&with_metadata(&json!({"a": "1", "b": "2"}))).await;
        for status in moves {
            let moved = session.patch(&path(id), &json!({"status": status})).await.expect(StatusCode::OK);
            assert_eq!(moved.json["metadata"], json!({"a": "1", "b": "2"}), "what is not named stays");
        }
        let version = moves.len() + 1;
        let same = session.patch(&path(id), &json!({"metadata": {"b": "2", "a": "1"}})).await;
        assert_eq!(same.expect(StatusCode::OK).json["version"], version, "nothing changes");
        let changed = session.put(&path(id), &json!({"metadata": {"b": "3"}})).await.expect(StatusCode::OK);
        assert_eq!(
            (&changed.json["metadata"], &changed.json["version"]),
            (&json!({"b": "3"}), &json!(version + 1))
        );
        let emptied = session.patch(&path(id), &json!({"metadata": {}})).await.expect(StatusCode::OK);
        assert_eq!(emptied.json["metadata"], json!({}));
        let payload: String =
            sqlx::query_scalar("SELECT payload FROM outbox WHERE order_id = $1 ORDER BY id DESC LIMIT 1")
                .bind(id)
                .fetch_one(&app.db)
                .await
                .unwrap();
        let event: Value = serde_json::from_str(&payload).unwrap();
        assert_eq!(event["data"]["changes"], json!({"metadata": {"from": {"b": "3"}, "to": {}}}));
        // A change of what is fixed stays refused, whatever comes with it.
        if !moves.is_empty() {
            let mixed = json!({"metadata": {"c": "4"}, "order_date": "2025-01-01"});
            session.patch(&path(id), &mixed).await.expect_problem(StatusCode::CONFLICT, "order_not_editable");
            assert_eq!(session.get(&path(id)).await.json, emptied.json);
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_by_its_key_and_nothing_is_stored() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let many: Map<String, Value> = (0..21).map(|n| (format!("k{n}"), json!(""))).collect();
    let long_key = "ä".repeat(41);
    let cases = [
        (json!({"color": "a\0b"}).to_string(), vec!["/metadata/color invalid_value"]),
        (r#"{"color":"\ud83d"}"#.to_owned(), vec!["/metadata/color invalid_value"]),
        (r#"{"\udc00":"x"}"#.to_owned(), vec!["/metadata invalid_value"]),
        (
            json!({"color": 1, "size": null, "a": ["b"]}).to_string(),
            vec!["/metadata/a invalid_type", "/metadata/color invalid_type", "/metadata/size invalid_type"],
        ),
        (json!({"a": "x".repeat(501), "b": "x".repeat(500)}).to_string(), vec!["/metadata/a invalid_length"]),
        (json!({"": "x"}).to_string(), vec!["/metadata/ invalid_length"]),
        (json!({"a\u{7f}/~": "x"}).to_string(), vec!["/metadata/a\u{7f}~1~0 invalid_value"]),
        (json!({"a": "line\nbreak"}).to_string(), vec!["/metadata/a invalid_value"]),
        (Value::from(many).to_string(), vec!["/metadata invalid_length"]),
        (r#"{"a":"1","b":"2","a":"3"}"#.to_owned(), vec!["/metadata/a duplicate_field"]),
        ("null".to_owned(), vec!["/metadata invalid_type"]),
        ("[]".to_owned(), vec!["/metadata invalid_type"]),
        (r#""{}""#.to_owned(), vec!["/metadata invalid_type"]),
    ];
    let send = async |method: Method, to: &str, body: String| {
        let request = session.request(method, to).header("content-type", "application/json");
        answer(request.body(body)).await.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed")
    };
    for (metadata, faults) in cases {
        let lines = two_lines();
        let created = format!(r#"{{"order_date":"2025-01-20","lines":{lines},"metadata":{metadata}}}"#);
        assert_eq!(send(Method::POST, ORDERS, created).await.faults(), faults, "{metadata}");
        let changed = format!(r#"{{"metadata":{metadata}}}"#);
        assert_eq!(send(Method::PATCH, &path(id), changed).await.faults(), faults, "{metadata}");
    }
    let body = json!({"metadata": {&long_key: "x"}}).to_string();
    let refused = send(Method::PATCH, &path(id), body).await;
    assert_eq!(refused.faults(), [format!("/metadata/{long_key} invalid_length")]);
    assert_eq!(refused.json["errors"][0]["detail"], "the key must have 1 to 40 characters");
    assert_eq!(app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await, 1);
    assert_eq!(session.get(&path(id)).await.json["version"], 1);
}

#[tokio::test]
async fn an_order_with_the_largest_fields_is_stored_listed_and_fits_every_broker() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let line = json!({"product_id": i64::MAX, "quantity": 1000, "unit_price": "999999.99"});
    let body = json!({"order_date": "2025-01-20", "lines": vec![line; 50],
        "reference": "\u{1f4e6}".repeat(64), "metadata": largest('1')});
    let id = session.place(&body).await;
    let other = json!({"metadata": largest('2')});
    let changed = session.patch(&path(id), &other).await.expect(StatusCode::OK);
    assert_eq!(session.get(&path(id)).await.json, changed.json);
    let list = session.get(ORDERS).await.expect(StatusCode::OK);
    assert_eq!(list.json["orders"][0], changed.json);
    // The smallest limit of a message is that of SQS.
    let largest_event =
        app.count("SELECT max(octet_length(payload))::bigint FROM outbox WHERE tenant_id = 1").await;
    assert!((130_000..160_000).contains(&largest_event), "{largest_event}");
}

#[tokio::test]
async fn an_export_of_large_orders_has_all_of_them() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut ids = Vec::new();
    // More than two of the pages in which they are read.
    for _ in 0..60 {
        ids.insert(0, session.place(&with_metadata(&largest('1'))).await);
    }
    for query in ["", "?status=PENDING"] {
        let export = session.get(&format!("{EXPORT}{query}")).await.expect(StatusCode::OK);
        let lines = json_lines(&export.bytes);
        let exported: Vec<i64> = lines.iter().filter_map(|line| line["id"].as_i64()).collect();
        assert_eq!((exported, &lines[61]["rows"]), (ids.clone(), &json!(60)));
    }
}

/// Reads an order until its cache entry is this body.
async fn expect_cached(app: &TestApp, session: &Session, id: i64, body: &[u8]) {
    let mut redis = app.redis_connection().await;
    let key = format!("{}{id}", shared::cache::KEY_PREFIX);
    eventually("the entry is complete", async || {
        assert_eq!(session.get(&path(id)).await.expect(StatusCode::OK).bytes, body);
        let entry: Option<Vec<u8>> = redis::cmd("GET").arg(&key).query_async(&mut redis).await.ok()?;
        entry.is_some_and(|entry| entry.get(40..) == Some(body)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cache_entry_of_the_version_before_is_not_shown_and_is_replaced() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut body = with_metadata(&json!({"color": "red"}));
    body["reference"] = json!("A");
    let placed = session.post(ORDERS, &body).await.expect(StatusCode::CREATED);
    let id = placed.json["id"].as_i64().unwrap();
    let text = String::from_utf8(placed.bytes.clone()).unwrap();
    let (old, _) = text.split_once(r#","reference""#).unwrap();
    let mut redis = app.redis_connection().await;
    let key = format!("{}{id}", shared::cache::KEY_PREFIX);
    let entry = format!("{:020}{:020}{old}}}", 1, 1);
    let _: () = redis::cmd("SET").arg(&key).arg(&entry).query_async(&mut redis).await.unwrap();
    expect_cached(&app, &session, id, &placed.bytes).await;

    // A replica of the version before changes the order: its entry has a newer version, and lacks both.
    sqlx::query("UPDATE orders SET version = 2, status = 'CONFIRMED' WHERE id = $1")
        .bind(id)
        .execute(&app.db)
        .await
        .unwrap();
    let old = old.replace(r#""version":1"#, r#""version":2"#).replace("PENDING", "CONFIRMED");
    let entry = format!("{:020}{:020}{old}}}", 2, 1);
    let _: () = redis::cmd("SET").arg(&key).arg(&entry).query_async(&mut redis).await.unwrap();
    let shown = session.get(&path(id)).await.expect(StatusCode::OK);
    assert_eq!((&shown.json["reference"], &shown.json["version"]), (&json!("A"), &json!(2)));
    expect_cached(&app, &session, id, &shown.bytes).await;
}
