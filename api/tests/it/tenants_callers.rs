//! Whose token opens which tenant, and what a suspension ends.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use testbed::eventually;

use crate::{
    bulk_support::{IMPORT, RawStream, ndjson_file},
    orders_cache::with_postgresql_behind_a_proxy,
    orders_support::{order, path, without_database},
    support::{Answer, SECRET, TestApp, answer, claims},
    tenants_support::TENANTS,
};

const LOGIN_TEST: &str = "/api/v1/auth/login-test";
const REFRESH: &str = "/api/v1/auth/refresh";

#[track_caller]
fn expect_unauthenticated(answer: Answer) {
    answer.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

#[track_caller]
fn expect_suspended(answer: Answer) {
    answer.expect_problem(StatusCode::FORBIDDEN, "tenant_suspended");
}

/// The header of a token.
fn header(token: &str) -> Value {
    claims(&format!("x.{}.x", token.split('.').next().expect("a header")))
}

/// An access token of an administrator with this claim and header, signed here.
fn sign(tenant: &Value, header: &Header) -> String {
    let now = Clock::System.now().unix_timestamp();
    let claims = json!({"sub": "1", "customer_id": 1, "role": "admin", "type": "access", "iat": now, "exp": now + 60,
        "jti": "x", "tenant": tenant});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(header, &claims, &key).expect("a token")
}

#[tokio::test]
async fn a_token_names_its_tenant_unless_it_is_the_default_one() {
    let app = TestApp::start().await;
    let tenant = app.create_tenant("shop").await;
    let default = app.login(7).await;
    for token in [&default.access, &default.refresh] {
        assert_eq!(claims(token)["tenant"], Value::Null);
        assert_eq!(header(token), json!({"typ": "JWT", "alg": "HS256"}));
    }
    let session = app.login_in(tenant, 7).await;
    for token in [&session.access, &session.refresh] {
        assert_eq!(claims(token)["tenant"], tenant);
        // A version that knows no tenants must refuse it, and not take it for a token of the default tenant.
        assert_eq!((&header(token)["crit"], &header(token)["tenant"]), (&json!(["tenant"]), &json!(tenant)));
    }
    let pair = app.refresh(&session.refresh).await.expect(StatusCode::OK);
    for name in ["accessToken", "refreshToken"] {
        assert_eq!(claims(pair.json[name].as_str().expect("a token"))["tenant"], tenant);
    }
}

#[tokio::test]
async fn the_test_login_takes_a_number_or_a_slug_and_refuses_what_does_not_exist() {
    let app = TestApp::start().await;
    let tenant = app.create_tenant("shop").await;
    for name in [json!(tenant), json!("shop")] {
        let pair =
            app.post(LOGIN_TEST, &json!({"customer_id": 7, "tenant": name})).await.expect(StatusCode::OK);
        assert_eq!(claims(pair.json["accessToken"].as_str().expect("a token"))["tenant"], tenant);
    }
    for (name, code) in [
        (json!(4711), "invalid_value"),
        (json!("none"), "invalid_value"),
        (json!("No Slug"), "invalid_value"),
        (json!(0), "out_of_range"),
        (json!(2_147_483_648_i64), "out_of_range"),
        (json!(null), "invalid_type"),
        (json!([1]), "invalid_type"),
    ] {
        let refused = app.post(LOGIN_TEST, &json!({"customer_id": 7, "tenant": name})).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), [format!("/tenant {code}")], "{name}");
    }
}

#[tokio::test]
async fn a_token_of_a_tenant_that_does_not_exist_opens_nothing() {
    let app = TestApp::start().await;
    let ask = async |token: &str| answer(app.request(Method::GET, "/api/v1/orders").bearer_auth(token)).await;
    for tenant in
        [json!(4711), json!(0), json!(-1), json!("1"), json!(null), json!(2_147_483_648_i64), json!(1.5)]
    {
        expect_unauthenticated(ask(&sign(&tenant, &Header::default())).await);
    }
    ask(&sign(&json!(1), &Header::default())).await.expect(StatusCode::OK);
    // The extension of the header must be what the claims say, and be named.
    let tenant = app.create_tenant("shop").await;
    let with = |crit: Option<&[&str]>, named: Value| {
        let mut header = Header::new(Algorithm::HS256);
        header.crit = crit.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        header.extras.insert("tenant", named);
        header
    };
    ask(&sign(&json!(tenant), &with(Some(&["tenant"]), json!(tenant)))).await.expect(StatusCode::OK);
    ask(&sign(&json!(tenant), &with(None, json!("anything")))).await.expect(StatusCode::OK);
    for header in [
        with(Some(&["tenant"]), json!(1)),
        with(Some(&["tenant"]), json!("shop")),
        with(Some(&["tenant"]), json!(null)),
        with(Some(&["tenant", "b64"]), json!(tenant)),
        with(Some(&[]), json!(tenant)),
    ] {
        expect_unauthenticated(ask(&sign(&json!(tenant), &header)).await);
    }
}

#[tokio::test]
async fn an_operator_acts_in_the_tenant_that_the_header_names_and_nobody_else_can() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let tenant = app.create_tenant("shop").await.to_string();
    let ask = async |tenant: &str| {
        operator.send(Method::GET, "/api/v1/orders", &[("x-tenant-id", tenant)], None).await
    };
    ask(&tenant).await.expect(StatusCode::OK);
    ask("1").await.expect(StatusCode::OK);
    for malformed in ["", "x", "shop", "+1", "01", "0", "-1", "1.0", "1,2", "2147483648"] {
        ask(malformed).await.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
    }
    let twice = operator.request(Method::GET, "/api/v1/orders").header("x-tenant-id", "1");
    let twice = answer(twice.header("x-tenant-id", "1")).await;
    twice.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
    let unknown = ask("4711").await.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(unknown.faults(), ["x-tenant-id invalid_value"]);
    for role in ["customer", "auditor", "admin"] {
        let session = app.login_as(&json!({"customer_id": 5, "role": role})).await;
        // Not even its own, or one that is none: what the header says is not looked at.
        for named in [tenant.as_str(), "1", "4711", "x"] {
            let refused = session.send(Method::GET, "/api/v1/orders", &[("x-tenant-id", named)], None).await;
            refused.expect_problem(StatusCode::FORBIDDEN, "forbidden");
        }
    }
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_on_every_replica_and_route_until_it_is_not() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let operator = app.login_operator().await;
    let tenant = app.create_tenant("shop").await;
    let credentials = json!({"email": "ada@example.com", "password": "correct horse", "tenant": "shop"});
    app.post("/api/v1/auth/register", &credentials).await.expect(StatusCode::CREATED);
    let session = app.login_in(tenant, 7).await;
    let admin = app.login_as(&json!({"customer_id": 8, "role": "admin", "tenant": tenant})).await;
    let elsewhere = replica.session(&session);
    elsewhere.get("/api/v1/orders").await.expect(StatusCode::OK);

    operator.suspend(tenant).await;
    // At once on the replica that was asked.
    for path in [
        "/api/v1/orders",
        "/api/v1/orders/1",
        "/api/v1/orders/1/history",
        "/api/v1/events",
        "/api/v1/orders/export",
    ] {
        expect_suspended(session.get(path).await);
        expect_suspended(admin.get(path).await);
    }
    expect_suspended(session.post("/api/v1/orders", &order()).await);
    expect_suspended(session.post("/api/v1/orders", &json!("not even read")).await);
    expect_suspended(session.delete("/api/v1/orders/1").await);
    expect_suspended(session.post("/api/v1/events/tickets", &json!({})).await);
    let refresh = json!({"refresh_token": session.refresh});
    expect_suspended(app.post(REFRESH, &refresh).await);
    expect_suspended(app.post(LOGIN_TEST, &json!({"customer_id": 7, "tenant": tenant})).await);
    expect_suspended(app.post("/api/v1/auth/login", &credentials).await);
    let newcomer = json!({"email": "bob@example.com", "password": "correct horse", "tenant": "shop"});
    expect_suspended(app.post("/api/v1/auth/register", &newcomer).await);
    // A stranger learns nothing of it.
    let mut wrong = credentials.clone();
    wrong["password"] = json!("wrong horse");
    expect_unauthenticated(app.post("/api/v1/auth/login", &wrong).await);
    // The others are not affected.
    app.login(7).await.get("/api/v1/orders").await.expect(StatusCode::OK);
    eventually("the other replica refuses it", async || {
        elsewhere.get("/api/v1/orders").await.status == StatusCode::FORBIDDEN
    })
    .await;

    operator.change_tenant(tenant, &json!({"suspended": false})).await.expect(StatusCode::OK);
    session.get("/api/v1/orders").await.expect(StatusCode::OK);
    app.refresh(&session.refresh).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn an_open_stream_and_a_long_poll_of_a_suspended_tenant_end() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let tenant = app.create_tenant("shop").await;
    let session = app.login_in(tenant, 7).await;
    let (mut stream, mut other) =
        (session.stream("after=now").await, app.login(7).await.stream("after=now").await);
    let poll = tokio::spawn({
        let session = session.clone();
        async move { session.events("after=now&wait=30").await }
    });
    // Both are under way.
    assert_eq!(stream.next().await.retry.as_deref(), Some("2000"));
    other.next().await;
    operator.suspend(tenant).await;
    stream.ends().await;
    let answered = poll.await.expect("no panic");
    assert!(answered.status == StatusCode::FORBIDDEN || answered.json["events"] == json!([]), "{answered:?}");
    // The stream of another tenant goes on.
    app.append(7, 1..=1).await;
    assert_eq!(other.event().await.order(), 1);
}

#[tokio::test]
async fn an_import_of_a_suspended_tenant_ends() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let tenant = app.create_tenant("shop").await;
    let session = app.login_in(tenant, 7).await;
    let mut import = RawStream::open(&app, &session, "POST", IMPORT).await;
    let mut rows = ndjson_file(7, 2);
    let second = rows.split_off(rows.find('\n').expect("two rows") + 1);
    import.send(&rows).await.expect("the import is under way");
    assert_eq!(import.line().await.expect("a result")["status"], 201);
    operator.suspend(tenant).await;
    // It may still be taken, until the replica looks at the tenant again.
    let _too_late = import.send(&second).await;
    let mut end = import.line().await.expect("a line");
    while end["complete"].is_null() {
        end = import.line().await.expect("the last line");
    }
    assert_eq!(end["complete"], false);
    assert_eq!(end["problem"]["code"], "tenant_suspended");
}

#[tokio::test]
async fn a_removed_tenant_is_as_one_that_never_was() {
    let app = TestApp::start().await;
    let tenant = app.create_tenant("shop").await;
    let session = app.login_in(tenant, 7).await;
    app.sql("UPDATE tenants SET removal_began_at = now() WHERE slug = 'shop'").await;
    eventually("its removal is noticed", async || {
        session.get("/api/v1/orders").await.status == StatusCode::FORBIDDEN
    })
    .await;
    app.sql("DELETE FROM tenants WHERE slug = 'shop'").await;
    eventually("its end is noticed", async || {
        session.get("/api/v1/orders").await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    expect_unauthenticated(app.refresh(&session.refresh).await);
}

#[tokio::test]
async fn a_tenant_is_known_on_every_replica_as_soon_as_its_creation_is_answered() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let tenant = app.create_tenant("shop").await;
    let session = app.login_in(tenant, 7).await;
    replica.session(&session).get("/api/v1/orders").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn while_postgresql_is_down_the_known_tenants_are_let_in_and_others_are_503() {
    let (app, proxy) = with_postgresql_behind_a_proxy().await;
    let tenant = app.create_tenant("shop").await;
    let session = app.login_in(tenant, 7).await;
    let id = session.place(&order()).await;
    let mut redis = app.redis_connection().await;
    let keys =
        [format!("{tenant}:{id}"), id.to_string()].map(|key| format!("{}{key}", shared::cache::KEY_PREFIX));
    eventually("it is cached", async || {
        session.get(&path(id)).await.expect(StatusCode::OK);
        redis::cmd("EXISTS").arg(&keys).query_async::<bool>(&mut redis).await == Ok(true)
    })
    .await;
    proxy.refuse().await;
    proxy.cut();
    without_database(async || session.get(&path(id)).await).await.expect(StatusCode::OK);
    let stranger =
        answer(app.request(Method::GET, &path(id)).bearer_auth(sign(&json!(4711), &Header::default())));
    stranger.await.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
}

#[tokio::test]
async fn an_operator_must_say_whose_sessions_end_in_another_tenant() {
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let tenant = app.create_tenant("shop").await;
    let (there, here) = (app.login_in(tenant, 900).await, app.login(900).await);
    let number = tenant.to_string();
    let header = [("x-tenant-id", number.as_str())];
    let end = async |body: Option<&Value>| {
        operator.send(Method::POST, "/api/v1/auth/logout-all", &header, body).await
    };
    let refused = end(None).await.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(refused.faults(), ["/customer_id required"]);
    end(Some(&json!({"customer_id": 900}))).await.expect(StatusCode::NO_CONTENT);
    expect_unauthenticated(app.refresh(&there.refresh).await);
    app.refresh(&here.refresh).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn tenants_are_managed_by_operators_of_any_tenant_and_by_nobody_else() {
    let app = TestApp::start().await;
    let tenant = app.create_tenant("shop").await;
    let operator = app.login_as(&json!({"customer_id": 1, "role": "operator", "tenant": tenant})).await;
    operator.get(TENANTS).await.expect(StatusCode::OK);
    let admin = app.login_as(&json!({"customer_id": 1, "role": "admin", "tenant": tenant})).await;
    admin.get(TENANTS).await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    let created = admin.post(TENANTS, &json!({"slug": "mine", "name": "Mine"})).await;
    created.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    admin.get(&path(1)).await.expect(StatusCode::NOT_FOUND);
}
