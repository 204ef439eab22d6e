//! The routes by which operators manage tenants.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    support::{Answer, TestApp},
    tenants_support::{TENANTS, tenant_path},
};

#[track_caller]
fn expect_faults(answer: Answer, faults: &[&str]) {
    let answer = answer.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(answer.faults(), faults);
}

#[tokio::test]
async fn a_created_tenant_can_be_shown_and_has_what_was_not_named_by_default() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let created = operator.post(TENANTS, &json!({"slug": "my-shop", "name": "Läden & Söhne"})).await;
    let created = created.expect(StatusCode::CREATED);
    let id = created.json["id"].as_i64().expect("a number");
    assert_eq!(created.header("location"), Some(tenant_path(id).as_str()));
    assert_eq!(created.header("etag"), Some("\"1\""));
    for (name, value) in [
        ("slug", json!("my-shop")),
        ("name", json!("Läden & Söhne")),
        ("timezone", json!("UTC")),
        ("rate_limit", Value::Null),
        ("suspended", json!(false)),
        ("version", json!(1)),
    ] {
        assert_eq!(created.json[name], value, "{name}");
    }
    let shown = operator.get(&tenant_path(id)).await.expect(StatusCode::OK);
    assert_eq!((shown.json, shown.headers["etag"].clone()), (created.json, created.headers["etag"].clone()));
    let known = operator.send(Method::GET, &tenant_path(id), &[("if-none-match", "\"1\"")], None).await;
    known.expect(StatusCode::NOT_MODIFIED);
    for missing in ["/0", "/01", "/x", "/2147483648", "/2147483647"] {
        let missing = operator.get(&format!("{TENANTS}{missing}")).await;
        missing.expect_problem(StatusCode::NOT_FOUND, "not_found");
    }
}

#[tokio::test]
async fn a_slug_is_taken_once_however_many_ask_at_once() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let body = json!({"slug": "twice", "name": "Twice"});
    let answers = futures_util::future::join_all((0..6).map(|_| operator.post(TENANTS, &body))).await;
    let created = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(created, 1);
    for refused in answers.into_iter().filter(|answer| answer.status != StatusCode::CREATED) {
        refused.expect_problem(StatusCode::CONFLICT, "slug_taken");
    }
    let other = operator.create_tenant(&json!({"slug": "other", "name": "Other"})).await;
    let refused = operator.change_tenant(other, &json!({"slug": "twice"})).await;
    refused.expect_problem(StatusCode::CONFLICT, "slug_taken");
    assert_eq!(operator.get(&tenant_path(other)).await.json["slug"], "other");
}

#[tokio::test]
async fn every_error_of_a_tenant_is_reported_at_once() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    expect_faults(operator.post(TENANTS, &json!({})).await, &["/name required", "/slug required"]);
    let body = json!({"slug": "My Shop", "name": "", "timezone": "Mars/Olympus", "rate_limit": "fast", "suspended": 1,
        "colour": "red"});
    expect_faults(
        operator.post(TENANTS, &body).await,
        &[
            "/colour unknown_field",
            "/name invalid_length",
            "/rate_limit invalid_value",
            "/slug invalid_value",
            "/suspended invalid_type",
            "/timezone invalid_value",
        ],
    );
    for slug in ["", "a b", "ä", "A", "x_y", &"x".repeat(41)] {
        let refused = operator.post(TENANTS, &json!({"slug": slug, "name": "x"})).await;
        expect_faults(refused, &["/slug invalid_value"]);
    }
    for name in [" x", "x ", "a\u{0}b", "a\u{9f}b", "\u{a0}x"] {
        let refused = operator.post(TENANTS, &json!({"slug": "x", "name": name})).await;
        expect_faults(refused, &["/name invalid_value"]);
    }
    // PostgreSQL would take the first four, but they are no names of time zones.
    for zone in [
        "UTC+3",
        "EST5EDT4",
        "FOO3",
        "posix/Europe/Berlin",
        "europe/berlin",
        "localtime",
        "",
        "a\u{0}",
        "'; --",
    ] {
        let refused = operator.post(TENANTS, &json!({"slug": "x", "name": "x", "timezone": zone})).await;
        expect_faults(refused, &["/timezone invalid_value"]);
    }
    for quota in ["0/60s", "1000", "1000/60", "10/90000s", "1000001/1s"] {
        let refused = operator.post(TENANTS, &json!({"slug": "x", "name": "x", "rate_limit": quota})).await;
        expect_faults(refused, &["/rate_limit invalid_value"]);
    }
    let (longest, name) = ("x".repeat(40), "ü".repeat(100));
    let body =
        json!({"slug": longest, "name": name, "timezone": "Asia/Kathmandu", "rate_limit": "1000000/86400s"});
    let created = operator.post(TENANTS, &body).await.expect(StatusCode::CREATED);
    assert_eq!(created.json["timezone"], "Asia/Kathmandu");
}

#[tokio::test]
async fn an_update_changes_what_is_named_and_nothing_else() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let id = operator.create_tenant(&json!({"slug": "shop", "name": "Shop", "rate_limit": "10/1s"})).await;
    let changed = operator.change_tenant(id, &json!({"name": "Store", "timezone": "Europe/Berlin"})).await;
    let changed = changed.expect(StatusCode::OK);
    assert_eq!(changed.header("etag"), Some("\"2\""));
    assert_eq!(
        (
            &changed.json["slug"],
            &changed.json["name"],
            &changed.json["timezone"],
            &changed.json["rate_limit"]
        ),
        (&json!("shop"), &json!("Store"), &json!("Europe/Berlin"), &json!("10/1s"))
    );
    let same = operator.change_tenant(id, &json!({"name": "Store"})).await.expect(StatusCode::OK);
    assert_eq!(same.json, changed.json);
    let unlimited = operator.change_tenant(id, &json!({"rate_limit": null})).await.expect(StatusCode::OK);
    assert_eq!((&unlimited.json["rate_limit"], &unlimited.json["version"]), (&Value::Null, &json!(3)));
    expect_faults(
        operator.change_tenant(id, &json!({"name": null, "id": 7})).await,
        &["/id unknown_field", "/name invalid_type"],
    );
    let absent = operator.change_tenant(4711, &json!({"name": "x"})).await;
    absent.expect_problem(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn of_two_changes_at_once_with_if_match_one_is_refused_and_names_the_version() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let id = operator.create_tenant(&json!({"slug": "shop", "name": "Shop"})).await;
    let change = async |name: &str| {
        let body = json!({"name": name});
        operator.send(Method::PATCH, &tenant_path(id), &[("if-match", "\"1\"")], Some(&body)).await
    };
    let (one, other) = tokio::join!(change("One"), change("Other"));
    let (done, refused) = if one.status == StatusCode::OK { (one, other) } else { (other, one) };
    let done = done.expect(StatusCode::OK);
    let refused = refused.expect_problem(StatusCode::PRECONDITION_FAILED, "version_mismatch");
    assert_eq!(refused.json["detail"], "the tenant is at version 2, which the precondition does not allow");
    assert_eq!(refused.json["current_version"], 2);
    assert_eq!(operator.get(&tenant_path(id)).await.json["name"], done.json["name"]);
    // Without it, all are done, one after another.
    let renames = (0..5).map(|number| {
        let body = json!({"name": format!("Shop {number}")});
        async move { body }
    });
    let bodies = futures_util::future::join_all(renames).await;
    let answers = bodies.iter().map(|body| operator.change_tenant(id, body));
    for answer in futures_util::future::join_all(answers).await {
        answer.expect(StatusCode::OK);
    }
    assert_eq!(operator.get(&tenant_path(id)).await.json["version"], 7);
}

#[tokio::test]
async fn a_repeated_request_with_its_key_gets_the_first_response() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let body = json!({"slug": "shop", "name": "Shop"});
    let create = async |body: &Value| {
        operator.send(Method::POST, TENANTS, &[("idempotency-key", "k1")], Some(body)).await
    };
    let (one, other) = tokio::join!(create(&body), create(&body));
    let (one, other) = (one.expect(StatusCode::CREATED), other.expect(StatusCode::CREATED));
    assert_eq!(one.bytes, other.bytes);
    let replays = [&one, &other].map(|answer| answer.header("idempotent-replayed").is_some());
    assert_eq!(replays.iter().filter(|replayed| **replayed).count(), 1);
    let another = create(&json!({"slug": "shop-2", "name": "Shop"})).await;
    another.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");

    let id = one.json["id"].as_i64().expect("a number");
    let headers = [("idempotency-key", "k2"), ("if-match", "\"1\"")];
    let rename = json!({"name": "Store"});
    let first = operator.send(Method::PATCH, &tenant_path(id), &headers, Some(&rename)).await;
    let first = first.expect(StatusCode::OK);
    operator.change_tenant(id, &json!({"name": "Other"})).await.expect(StatusCode::OK);
    let again = operator.send(Method::PATCH, &tenant_path(id), &headers, Some(&rename)).await;
    let again = again.expect(StatusCode::OK);
    assert_eq!((again.header("idempotent-replayed"), &again.bytes), (Some("true"), &first.bytes));
    assert_eq!(operator.get(&tenant_path(id)).await.json["name"], "Other");
    let nothing = json!({"name": "Other"});
    for replayed in [None, Some("true")] {
        let same = operator
            .send(Method::PATCH, &tenant_path(id), &[("idempotency-key", "k3")], Some(&nothing))
            .await
            .expect(StatusCode::OK);
        assert_eq!((same.header("idempotent-replayed"), &same.json["version"]), (replayed, &json!(3)));
    }
}

#[tokio::test]
async fn a_key_counts_also_for_a_removal_that_has_begun() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let id = operator.create_tenant(&json!({"slug": "shop", "name": "Shop"})).await;
    let with_key = async |method: Method, path: &str, key, body: Option<&Value>| {
        operator.send(method, path, &[("idempotency-key", key)], body).await
    };
    let path = tenant_path(id);
    with_key(Method::PATCH, &path, "k1", Some(&json!({"name": "x"}))).await.expect(StatusCode::OK);
    operator.delete(&path).await.expect(StatusCode::ACCEPTED);
    let reused = with_key(Method::DELETE, &path, "k1", None).await;
    reused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    for replayed in [None, Some("true")] {
        let again = with_key(Method::DELETE, &path, "k2", None).await.expect(StatusCode::ACCEPTED);
        assert_eq!(again.header("idempotent-replayed"), replayed);
    }
    let reused =
        with_key(Method::POST, TENANTS, "k2", Some(&json!({"slug": "shop-2", "name": "Shop"}))).await;
    reused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
}

#[tokio::test]
async fn the_list_has_every_tenant_once_however_it_is_paged() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let mut created = Vec::new();
    for number in 0..5 {
        created
            .push(operator.create_tenant(&json!({"slug": format!("shop-{number}"), "name": "Shop"})).await);
    }
    let all = operator.get(&format!("{TENANTS}?size=100")).await.expect(StatusCode::OK);
    assert_eq!((&all.json["has_next"], &all.json["next_cursor"]), (&json!(false), &Value::Null));
    let ids = |page: &Value| -> Vec<i64> {
        page["tenants"]
            .as_array()
            .expect("tenants")
            .iter()
            .filter_map(|tenant| tenant["id"].as_i64())
            .collect()
    };
    let expected = ids(&all.json);
    assert_eq!(all.json["tenants"][0]["slug"], "default");
    assert!(created.iter().all(|id| expected.contains(id)));
    let (mut paged, mut query) = (Vec::new(), "size=2".to_owned());
    loop {
        let page = operator.get(&format!("{TENANTS}?{query}")).await.expect(StatusCode::OK).json;
        paged.extend(ids(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        query = format!("size=2&cursor={next}");
    }
    assert_eq!(paged, expected);
    for cursor in ["x", "AAAAAA", "gAAAAA", "AAAAAQ%3D%3D", "AAAAAAAA"] {
        expect_faults(operator.get(&format!("{TENANTS}?cursor={cursor}")).await, &["?cursor invalid_value"]);
    }
    expect_faults(
        operator.get(&format!("{TENANTS}?size=0&page=1")).await,
        &["?page unknown_field", "?size out_of_range"],
    );
}

#[tokio::test]
async fn the_default_tenant_cannot_be_suspended() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let refused = operator.change_tenant(1, &json!({"suspended": true, "name": "Mine"})).await;
    expect_faults(refused, &["/suspended invalid_value"]);
    assert_eq!(operator.get(&tenant_path(1)).await.json["name"], "Default tenant");
    operator.change_tenant(1, &json!({"suspended": false, "name": "Mine"})).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_tenant_whose_removal_has_begun_is_shown_and_cannot_be_changed() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let id = operator.create_tenant(&json!({"slug": "shop", "name": "Shop"})).await;
    app.sql("UPDATE tenants SET removal_began_at = now() WHERE slug = 'shop'").await;
    let shown = operator.get(&tenant_path(id)).await.expect(StatusCode::OK);
    assert_eq!(shown.json["removal"]["step"], "waiting", "{}", shown.json);
    assert!(shown.json["removal"]["began_at"].is_string(), "{}", shown.json);
    let refused = operator.change_tenant(id, &json!({"name": "x"})).await;
    refused.expect_problem(StatusCode::CONFLICT, "tenant_being_removed");
}
