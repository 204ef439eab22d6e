//! Accounts, sessions and limits of several tenants whose customers have the same addresses and numbers.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::macros::datetime;

use crate::{
    support::{Answer, TestApp, answer, claims},
    tenants_support::TENANTS,
};

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const LOGOUT_ALL: &str = "/api/v1/auth/logout-all";

fn clock() -> Clock {
    Clock::manual(datetime!(2025-01-20 10:00 UTC))
}

fn ada(password: &str, tenant: Option<&str>) -> Value {
    let mut body = json!({"email": "ada@example.com", "password": password});
    if let Some(tenant) = tenant {
        body["tenant"] = json!(tenant);
    }
    body
}

#[track_caller]
fn expect_over(answer: Answer) {
    answer.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

#[tokio::test]
async fn an_address_has_one_account_in_each_tenant() {
    let app = TestApp::start().await;
    let tenant = app.create_tenant("shop").await;
    let mut customers = Vec::new();
    for (password, slug, claim) in
        [("correct horse", None, Value::Null), ("another horse", Some("shop"), json!(tenant))]
    {
        let opened = app.post(REGISTER, &ada(password, slug)).await.expect(StatusCode::CREATED);
        customers.push(opened.json["customer_id"].clone());
        let again = app.post(REGISTER, &ada("whatever horse", slug)).await;
        again.expect_problem(StatusCode::CONFLICT, "email_taken");
        let pair = app.post_until_available(LOGIN, &ada(password, slug)).await.expect(StatusCode::OK);
        assert_eq!(claims(pair.json["accessToken"].as_str().expect("a token"))["tenant"], claim);
        assert_eq!(pair.json["customerId"], opened.json["customer_id"]);
        app.refresh(pair.json["refreshToken"].as_str().expect("a token")).await.expect(StatusCode::OK);
    }
    assert_ne!(customers[0], customers[1]);
    // The password of one tenant opens no other.
    for (password, slug) in [("another horse", None), ("correct horse", Some("shop"))] {
        expect_over(app.post(LOGIN, &ada(password, slug)).await);
    }
    // The slug of the default tenant names it, too.
    app.post_until_available(LOGIN, &ada("correct horse", Some("default"))).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_login_does_not_show_whether_there_is_such_a_tenant() {
    let app = TestApp::start().await;
    app.create_tenant("shop").await;
    app.post(REGISTER, &ada("correct horse", Some("shop"))).await.expect(StatusCode::CREATED);
    let mut answers = Vec::new();
    for slug in ["shop", "no-shop"] {
        let request = app.request(Method::POST, LOGIN).header("x-request-id", "same");
        let refused = answer(request.json(&ada("wrong horse", Some(slug)))).await;
        answers.push(refused.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated").bytes);
    }
    assert_eq!(answers[0], answers[1]);
    for (body, code) in
        [(json!("Shop!"), "invalid_value"), (json!(2), "invalid_type"), (json!(null), "invalid_type")]
    {
        for route in [LOGIN, REGISTER] {
            let refused = app
                .post(
                    route,
                    &json!({"email": "ada@example.com", "password": "correct horse", "tenant": body}),
                )
                .await;
            let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
            assert_eq!(refused.faults(), [format!("/tenant {code}")], "{route} {body}");
        }
    }
    // Opening an account cannot hide it.
    let refused = app.post(REGISTER, &ada("correct horse", Some("no-shop"))).await;
    let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(refused.faults(), ["/tenant invalid_value"]);
}

#[tokio::test]
async fn wrong_passwords_of_one_tenant_lock_no_account_of_another() {
    let app = TestApp::with().exact_limits(&clock()).start().await;
    let shop = app.create_tenant("shop").await;
    for slug in [None, Some("shop")] {
        app.post(REGISTER, &ada("correct horse", slug)).await.expect(StatusCode::CREATED);
    }
    for _ in 0..10 {
        expect_over(app.post(LOGIN, &ada("wrong horse", Some("shop"))).await);
    }
    let locked = app.post(LOGIN, &ada("correct horse", Some("shop"))).await;
    locked.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    app.post_until_available(LOGIN, &ada("correct horse", None)).await.expect(StatusCode::OK);
    // A tenant that does not exist counts alike, and the slug of the default tenant gives no more attempts.
    for (slug, other) in [("no-shop", Some("no-shop")), ("default", None)] {
        for _ in 0..10 {
            expect_over(app.post(LOGIN, &ada("wrong horse", Some(slug))).await);
        }
        let locked = app.post(LOGIN, &ada("wrong horse", other)).await;
        locked.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    }
    // They stay with the tenant if another one gets its slug.
    let operator = app.login_operator().await;
    operator.change_tenant(shop, &json!({"slug": "renamed"})).await.expect(StatusCode::OK);
    app.create_tenant("shop").await;
    app.post(REGISTER, &ada("correct horse", Some("shop"))).await.expect(StatusCode::CREATED);
    app.post_until_available(LOGIN, &ada("correct horse", Some("shop"))).await.expect(StatusCode::OK);
    let locked = app.post(LOGIN, &ada("correct horse", Some("renamed"))).await;
    locked.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn logout_all_ends_no_session_of_another_tenant() {
    let app = TestApp::with().clock(&clock()).start().await;
    let tenant = app.create_tenant("shop").await;
    let (here, there) = (app.login(7).await, app.login_in(tenant, 7).await);
    let admin = app.login_as(&json!({"customer_id": 9, "role": "admin", "tenant": tenant})).await;
    admin.post(LOGOUT_ALL, &json!({"customer_id": 7})).await.expect(StatusCode::NO_CONTENT);
    expect_over(app.refresh(&there.refresh).await);
    let next = app.refresh(&here.refresh).await.expect(StatusCode::OK);
    let again = app.login_in(tenant, 7).await;
    let ended = app.request(Method::POST, LOGOUT_ALL).bearer_auth(&here.access);
    answer(ended).await.expect(StatusCode::NO_CONTENT);
    expect_over(app.refresh(next.json["refreshToken"].as_str().expect("a token")).await);
    app.refresh(&again.refresh).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_session_in_redis_has_its_tenant_in_its_key_unless_it_is_the_default_one() {
    let app = TestApp::start().await;
    let tenant = app.create_tenant("shop").await;
    let mut redis = app.redis_connection().await;
    for (session, begin) in [
        (app.login(7).await, "session:".to_owned()),
        (app.login_in(tenant, 7).await, format!("session:{tenant}:")),
    ] {
        let token = claims(&session.refresh);
        let id = token["jti"].as_str().and_then(|jti| jti.split('.').next()).expect("an id");
        let exists: bool = redis::cmd("EXISTS")
            .arg(format!("{begin}{id}"))
            .query_async(&mut redis)
            .await
            .expect("an answer");
        assert!(exists, "{begin}{id}");
    }
}

#[tokio::test]
async fn both_versions_of_a_rolling_upgrade_see_the_sessions_that_the_other_has_ended() {
    let app = TestApp::with().clock(&clock()).start().await;
    let tenant = app.create_tenant("shop").await;
    // As the version before ends them.
    let (ended, other) = (app.login(7).await, app.login_in(tenant, 7).await);
    app.sql(
        "INSERT INTO session_generations AS current (customer_id, generation, ended_at) VALUES (7, 1, '2025-01-20 10:00Z')
         ON CONFLICT (customer_id) DO UPDATE
         SET generation = current.generation + 1, ended_at = greatest(current.ended_at, excluded.ended_at)",
    )
    .await;
    expect_over(app.refresh(&ended.refresh).await);
    app.refresh(&other.refresh).await.expect(StatusCode::OK);
    // As this version ends them: the one before reads this table.
    let generation = async |customer: i64| {
        sqlx::query_scalar::<_, i64>("SELECT generation FROM session_generations WHERE customer_id = $1")
            .bind(customer)
            .fetch_optional(&app.db)
            .await
            .expect("the table")
    };
    for (session, customer, expected) in [
        (app.login(7).await, 7, Some(2)),
        (app.login(8).await, 8, Some(1)),
        (app.login_in(tenant, 9).await, 9, None),
    ] {
        answer(session.request(Method::POST, LOGOUT_ALL)).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(generation(customer).await, expected);
        expect_over(app.refresh(&session.refresh).await);
    }
    app.sql("UPDATE session_generations SET generation = generation + 1 WHERE customer_id = 7").await;
    let known: i64 =
        sqlx::query_scalar("SELECT generation FROM ended_sessions WHERE customer_id = 7 AND tenant_id = 1")
            .fetch_one(&app.db)
            .await
            .expect("a row");
    assert_eq!(known, 3);
}

#[tokio::test]
async fn an_account_of_another_tenant_does_not_decide_a_role() {
    let app = TestApp::start().await;
    app.create_tenant("shop").await;
    let opened = app.post(REGISTER, &ada("correct horse", Some("shop"))).await.expect(StatusCode::CREATED);
    app.sql("UPDATE accounts SET role = 'auditor' WHERE tenant_id <> 2 AND email = 'ada@example.com'").await;
    let pair =
        app.post_until_available(LOGIN, &ada("correct horse", Some("shop"))).await.expect(StatusCode::OK);
    assert_eq!(claims(pair.json["accessToken"].as_str().expect("a token"))["role"], "auditor");
    // The account moves, so its sessions in the old tenant are over.
    app.sql("UPDATE accounts SET tenant_id = 1 WHERE tenant_id <> 2 AND email = 'ada@example.com'").await;
    expect_over(app.refresh(pair.json["refreshToken"].as_str().expect("a token")).await);
    let pair = app.post_until_available(LOGIN, &ada("correct horse", None)).await.expect(StatusCode::OK);
    assert_eq!(pair.json["customerId"], opened.json["customer_id"]);
}

#[tokio::test]
async fn the_quota_of_a_tenant_counts_all_its_callers_and_nobody_else() {
    let clock = clock();
    let app = TestApp::with().exact_limits(&clock).set("RATE_LIMIT_CUSTOMER", "100/3600s").start().await;
    let operator = app.login_operator().await;
    let tenant =
        operator.create_tenant(&json!({"slug": "shop", "name": "Shop", "rate_limit": "4/3600s"})).await;
    let other =
        operator.create_tenant(&json!({"slug": "other", "name": "Other", "rate_limit": "4/3600s"})).await;
    let (one, two) = (app.login_in(tenant, 7).await, app.login_in(tenant, 8).await);
    let (same_number, header) = (app.login(7).await, tenant.to_string());
    for (session, left, customer) in [(&one, 3, 99), (&two, 2, 99), (&one, 1, 98), (&two, 0, 98)] {
        let seen = session.get("/api/v1/orders").await.expect(StatusCode::OK);
        let limits = seen.header("ratelimit").expect("a RateLimit field");
        assert!(limits.starts_with(&format!(r#""customer";r={customer};t="#)), "{limits}");
        assert!(limits.contains(&format!(r#", "tenant";r={left};t="#)), "{limits}");
        let policies = seen.header("ratelimit-policy").expect("a policy");
        assert_eq!(policies, r#""customer";q=100;w=3600, "tenant";q=4;w=3600"#);
    }
    let refused =
        one.get("/api/v1/orders").await.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("900"));
    let seen = same_number.get("/api/v1/orders").await.expect(StatusCode::OK);
    assert_eq!(seen.header("ratelimit-policy"), Some(r#""customer";q=100;w=3600"#));
    assert!(
        seen.header("ratelimit").is_some_and(|left| left.starts_with(r#""customer";r=99;"#)),
        "{:?}",
        seen.headers
    );
    let seen = app.login_in(other, 7).await.get("/api/v1/orders").await.expect(StatusCode::OK);
    assert!(
        seen.header("ratelimit").is_some_and(|left| left.contains(r#""tenant";r=3;"#)),
        "{:?}",
        seen.headers
    );
    // What an operator does there is its own.
    operator
        .send(Method::GET, "/api/v1/orders", &[("x-tenant-id", &header)], None)
        .await
        .expect(StatusCode::OK);
    // A new quota counts at once and is earned back at its own pace, however long the one before would have taken.
    for (quota, wait) in [("1/86400s", "3600"), ("2/2s", "1")] {
        operator.change_tenant(tenant, &json!({"rate_limit": quota})).await.expect(StatusCode::OK);
        let refused = two.get("/api/v1/orders").await;
        let refused = refused.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
        assert_eq!(refused.header("retry-after"), Some(wait), "{quota}");
    }
    clock.advance(time::Duration::SECOND);
    two.get("/api/v1/orders").await.expect(StatusCode::OK);
    two.get("/api/v1/orders").await.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    // None is no limit.
    operator.change_tenant(tenant, &json!({"rate_limit": null})).await.expect(StatusCode::OK);
    two.get("/api/v1/orders").await.expect(StatusCode::OK);
    operator.get(TENANTS).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_ticket_opens_a_stream_of_its_tenant() {
    let app = TestApp::start().await;
    let mut redis = app.redis_connection().await;
    let tenant = app.create_tenant("shop").await;
    for (session, begin) in
        [(app.login(7).await, String::new()), (app.login_in(tenant, 7).await, format!("{tenant}."))]
    {
        let ticket = session.ticket().await;
        let ticket = ticket.json["ticket"].as_str().expect("a ticket").to_owned();
        assert_eq!(ticket.contains('.'), !begin.is_empty());
        assert!(ticket.starts_with(&begin), "{ticket}");
        // The version before, which knows no other tenants, must not find it.
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("ticket:*").query_async(&mut redis).await.expect("keys");
        let in_key = format!("ticket:{}", begin.replace('.', ":"));
        assert!(
            keys.iter().any(
                |key| key.starts_with(&in_key) && key.matches(':').count() == in_key.matches(':').count()
            ),
            "{keys:?}"
        );
        let open = async |ticket: &str| {
            let request = app.request(Method::GET, &format!("/api/v1/events?ticket={ticket}"));
            request.header("accept", "text/event-stream").send().await.expect("an answer").status()
        };
        // The part that names the tenant cannot be exchanged.
        let secret = ticket.rsplit('.').next().expect("a secret");
        for other in [format!("4711.{secret}"), format!("x.{secret}"), format!("{secret}x")] {
            assert_eq!(open(&other).await, StatusCode::UNAUTHORIZED, "{other}");
        }
        assert_eq!(open(&ticket).await, StatusCode::OK);
        assert_eq!(open(&ticket).await, StatusCode::UNAUTHORIZED);
    }
}
