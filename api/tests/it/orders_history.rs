//! `GET /api/v1/orders/{id}/history`.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    orders_metadata::largest as largest_metadata,
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
async fn the_history_has_every_change_and_shows_where_a_gap_is() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let history = format!("{}/history", path(id));
    let empty = session.get(&history).await.expect(StatusCode::OK);
    assert_eq!(empty.json, json!({"order_id": id, "entries": [], "complete_through": 0, "has_next": false}));

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
}

#[tokio::test]
async fn deleted_orders_have_a_history_for_those_who_could_see_them() {
    let app = TestApp::start().await;
    let (owner, other, admin) = (app.login(1).await, app.login(2).await, app.login_admin(3).await);
    let id = owner.place(&order()).await;
    let history = format!("{}/history", path(id));
    other.get(&history).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    owner.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    // Gone, and nothing is recorded yet: the log alone knows of it.
    let empty = json!({"order_id": id, "entries": [], "complete_through": 0, "has_next": false});
    for session in [&owner, &admin] {
        assert_eq!(session.get(&history).await.expect(StatusCode::OK).json, empty);
    }
    other.get(&history).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    record(&app, &[1, 2]).await;
    for session in [&owner, &admin] {
        let told = session.get(&history).await.expect(StatusCode::OK);
        assert_eq!(told.json["complete_through"], 2);
        assert_eq!(told.json["entries"][1]["action"], "DELETED");
    }
    other.get(&history).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    owner.get("/api/v1/orders/4711/history").await.expect_problem(StatusCode::NOT_FOUND, "not_found");
}

/// Records versions that nothing announced.
async fn record_versions(app: &TestApp, id: i64, versions: &[i64]) {
    sqlx::query(
        "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT $1, version, 'UPDATED', '{}', 1, 1, gen_random_uuid(), now() FROM unnest($2) AS version",
    )
    .bind(id)
    .bind(versions)
    .execute(&app.db)
    .await
    .unwrap();
}

fn versions(page: &Value) -> Vec<i64> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["version"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn every_page_of_the_history_says_how_far_the_whole_is_complete() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let history = format!("{}/history", path(id));
    // Version 7 is missing.
    let recorded: Vec<i64> = (1..=620).filter(|version| *version != 7).collect();
    record_versions(&app, id, &recorded).await;

    let page =
        async |query: &str| session.get(&format!("{history}{query}")).await.expect(StatusCode::OK).json;
    assert_eq!(versions(&page("").await), recorded[..100]);
    assert_eq!(versions(&page("?limit=500").await), recorded[..500]);
    assert_eq!(versions(&page("?limit=1&after_version=6").await), [8]);
    let mut seen = Vec::new();
    loop {
        let last = seen.last().copied().unwrap_or(0);
        let page = page(&format!("?limit=206&after_version={last}")).await;
        assert_eq!(page["complete_through"], 6, "on every page");
        seen.extend(versions(&page));
        assert_eq!(page["has_next"], seen.len() < recorded.len());
        if page["has_next"] == false {
            break;
        }
    }
    assert_eq!(seen, recorded);
    let beyond = page("?after_version=620").await;
    assert_eq!(beyond, json!({"order_id": id, "entries": [], "complete_through": 6, "has_next": false}));
    record_versions(&app, id, &[7]).await;
    assert_eq!(page("?after_version=620").await["complete_through"], 620);
}

#[tokio::test]
async fn all_errors_of_a_history_query_are_reported_at_once() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let history = format!("{}/history", path(session.place(&order()).await));
    for (query, faults) in [
        ("?limit=0", &["?limit out_of_range"][..]),
        ("?limit=501&after_version=-1", &["?after_version out_of_range", "?limit out_of_range"]),
        ("?limit=ten&page=1", &["?limit invalid_type", "?page unknown_field"]),
        ("?after_version=9223372036854775808", &["?after_version out_of_range"]),
        ("?limit=1&limit=1", &["?limit duplicate_field"]),
    ] {
        let refused = session.get(&format!("{history}{query}")).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), faults, "{query}");
    }
    session.get(&format!("{history}?after_version=9223372036854775807")).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_known_page_is_304_until_it_changes() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let history = format!("{}/history?limit=2", path(id));
    let ask = async |tag: &str| session.send(Method::GET, &history, &[("if-none-match", tag)], None).await;
    record_versions(&app, id, &[1, 2]).await;
    let first = session.get(&history).await.expect(StatusCode::OK);
    let tag = first.header("etag").unwrap().to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let unchanged = ask(&known).await.expect(StatusCode::NOT_MODIFIED);
        assert_eq!((unchanged.header("etag"), unchanged.bytes.len()), (Some(&*tag), 0));
    }
    ask("\"1\"").await.expect(StatusCode::OK);
    ask("nonsense").await.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
    // The same entries, and yet the page tells something new.
    record_versions(&app, id, &[4]).await;
    let next = ask(&tag).await.expect(StatusCode::OK);
    assert_eq!((&next.json["has_next"], versions(&next.json)), (&json!(true), vec![1, 2]));
    assert_ne!(next.header("etag"), Some(&*tag));
    let other = app.login(2).await;
    other.send(Method::GET, &history, &[("if-none-match", "*")], None).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_page_of_large_changes_is_shorter_and_the_next_one_goes_on() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    for round in ["1", "2"].iter().cycle().take(60) {
        let largest = largest_metadata(round.chars().next().unwrap());
        session.patch(&path(id), &json!({"metadata": largest})).await.expect(StatusCode::OK);
    }
    record(&app, &(1..=61).collect::<Vec<i64>>()).await;
    let page = async |after: i64| {
        let query = format!("{}/history?limit=500&after_version={after}", path(id));
        session.get(&query).await.expect(StatusCode::OK)
    };
    let versions = |json: &Value| -> Vec<i64> {
        json["entries"].as_array().unwrap().iter().map(|entry| entry["version"].as_i64().unwrap()).collect()
    };
    let first = page(0).await;
    assert!((4_000_000..4_500_000).contains(&first.bytes.len()), "{}", first.bytes.len());
    assert_eq!((&first.json["has_next"], &first.json["complete_through"]), (&json!(true), &json!(61)));
    let last = *versions(&first.json).last().unwrap();
    let second = page(last).await;
    assert_eq!(second.json["has_next"], false);
    let all = [versions(&first.json), versions(&second.json)].concat();
    assert_eq!(all, (1..=61).collect::<Vec<i64>>());
    assert_eq!(versions(&page(61).await.json), [0_i64; 0]);
}
