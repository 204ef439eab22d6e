//! What a session may go on as, and what ends it.

use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::{NoContext, Timestamp, Uuid};

use crate::support::{Answer, SECRET, TestApp, answer, claims, until_available};

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT_ALL: &str = "/api/v1/auth/logout-all";

fn clock() -> Clock {
    Clock::manual(datetime!(2025-01-20 10:00 UTC))
}

fn token(answer: &Answer) -> String {
    answer.json["refreshToken"].as_str().expect("a token").to_owned()
}

#[track_caller]
fn expect_over(answer: Answer) {
    answer.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

/// Opens the account `ada@example.com`, and gives its customer id.
async fn open_account(app: &TestApp) -> i64 {
    let opened = app.post(REGISTER, &ada()).await.expect(StatusCode::CREATED);
    opened.json["customer_id"].as_i64().expect("an id")
}

fn ada() -> Value {
    json!({"email": "ada@example.com", "password": "correct horse"})
}

async fn run(app: &TestApp, sql: &'static str) {
    sqlx::query(sql).execute(&app.db).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn a_refresh_returns_the_current_role_of_the_account() {
    let app = TestApp::start().await;
    open_account(&app).await;
    run(&app, "UPDATE accounts SET role = 'admin' WHERE tenant_id = 1").await;
    let admin = app.post_until_available(LOGIN, &ada()).await.expect(StatusCode::OK);
    assert_eq!(claims(admin.json["accessToken"].as_str().expect("a token"))["role"], "admin");
    let mut refresh_token = token(&admin);
    for role in ["customer", "admin"] {
        let changed = sqlx::query("UPDATE accounts SET role = $1 WHERE tenant_id = 1")
            .bind(role)
            .execute(&app.db)
            .await;
        changed.expect("an account");
        let pair = app.refresh(&refresh_token).await.expect(StatusCode::OK);
        for name in ["accessToken", "refreshToken"] {
            assert_eq!(claims(pair.json[name].as_str().expect("a token"))["role"], role);
        }
        refresh_token = token(&pair);
    }
}

#[tokio::test]
async fn a_session_ends_with_its_account() {
    let app = TestApp::start().await;
    open_account(&app).await;
    let pair = app.post_until_available(LOGIN, &ada()).await.expect(StatusCode::OK);
    run(&app, "DELETE FROM accounts WHERE tenant_id = 1").await;
    let refused = app.refresh(&token(&pair)).await;
    assert!(refused.header("www-authenticate").is_some_and(|value| value.contains("invalid_token")));
    expect_over(refused);
}

#[tokio::test]
async fn a_session_of_the_test_login_keeps_its_role_with_and_without_an_account() {
    let app = TestApp::start().await;
    let with_account = open_account(&app).await;
    for customer in [with_account, 7] {
        let session = app.login_admin(customer).await;
        let pair = app.refresh(&session.refresh).await.expect(StatusCode::OK);
        assert_eq!(claims(pair.json["accessToken"].as_str().expect("a token"))["role"], "admin");
    }
}

#[tokio::test]
async fn a_session_ends_ninety_days_after_its_login_however_often_it_is_refreshed() {
    let clock = clock();
    let app = TestApp::with().clock(&clock).start().await;
    let mut refresh_token = app.login(7).await.refresh;
    for _ in 0..17 {
        clock.advance(Duration::days(5));
        refresh_token = token(&app.refresh(&refresh_token).await.expect(StatusCode::OK));
    }
    clock.advance(Duration::days(5) - Duration::seconds(1));
    refresh_token = token(&app.refresh(&refresh_token).await.expect(StatusCode::OK));
    clock.advance(Duration::seconds(1));
    expect_over(app.refresh(&refresh_token).await);
}

#[tokio::test]
async fn logout_all_ends_all_sessions_of_the_caller_and_no_others() {
    let app = TestApp::with().clock(&clock()).start().await;
    let replica = app.replica().await;
    open_account(&app).await;
    let (phone, laptop) =
        (app.post_until_available(LOGIN, &ada()).await, app.post_until_available(LOGIN, &ada()).await);
    let other = app.login(7).await;
    let access = phone.json["accessToken"].as_str().expect("a token");
    for body in [None, Some(json!({}))] {
        let request = app.request(Method::POST, LOGOUT_ALL).bearer_auth(access);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let done = answer(request).await.expect(StatusCode::NO_CONTENT);
        assert!(done.bytes.is_empty());
    }
    for session in [&phone, &laptop] {
        expect_over(app.refresh(&token(session)).await);
    }
    let (elsewhere, body) = (replica.session(&other), json!({"refresh_token": other.refresh}));
    until_available(async || elsewhere.post(REFRESH, &body).await).await.expect(StatusCode::OK);
    // The clock stands still: a later login counts although no time has passed.
    let again = app.post_until_available(LOGIN, &ada()).await.expect(StatusCode::OK);
    app.refresh(&token(&again)).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn logout_all_of_another_customer_is_for_administrators() {
    let app = TestApp::start().await;
    let (alice, bob, admin) = (app.login(1).await, app.login(2).await, app.login_admin(3).await);
    let name_bob = json!({"customer_id": 2});
    alice.post(LOGOUT_ALL, &name_bob).await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    let bob = app.refresh(&bob.refresh).await.expect(StatusCode::OK);
    app.post(LOGOUT_ALL, &name_bob).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    for (body, fault) in [
        (json!({"customer_id": 0}), "/customer_id out_of_range"),
        (json!({"customer_id": null}), "/customer_id invalid_type"),
        (json!({"customer": 2}), "/customer unknown_field"),
    ] {
        let refused = admin.post(LOGOUT_ALL, &body).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), [fault]);
    }
    admin.post(LOGOUT_ALL, &name_bob).await.expect(StatusCode::NO_CONTENT);
    expect_over(app.refresh(&token(&bob)).await);
    for session in [&alice, &admin] {
        app.refresh(&session.refresh).await.expect(StatusCode::OK);
    }
    alice.post(LOGOUT_ALL, &json!({"customer_id": 1})).await.expect(StatusCode::NO_CONTENT);
}

/// A session as versions without marks in its id began it: the record in Redis, and its refresh token.
async fn begin_old_session(app: &TestApp, customer: i64, at: OffsetDateTime) -> String {
    let seconds = u64::try_from(at.unix_timestamp()).expect("after 1970");
    let session = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond())).simple();
    let current = Uuid::now_v7().simple();
    let mut redis = app.redis.connect().await;
    redis::cmd("HSET")
        .arg(format!("session:{session}"))
        .arg("current")
        .arg(current.to_string())
        .exec_async(&mut redis)
        .await
        .expect("a session");
    let at = at.unix_timestamp();
    let claims = json!({"sub": customer.to_string(), "customer_id": customer, "role": "admin", "type": "refresh",
                        "iat": at, "exp": at + 7 * 86_400, "jti": format!("{session}.{current}")});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token")
}

#[tokio::test]
async fn sessions_of_an_older_version_follow_the_same_rules() {
    let clock = clock();
    let app = TestApp::with().clock(&clock).start().await;
    let customer = open_account(&app).await;
    let first = begin_old_session(&app, customer, clock.now()).await;
    let pair = app.refresh(&first).await.expect(StatusCode::OK);
    assert_eq!(claims(pair.json["accessToken"].as_str().expect("a token"))["role"], "customer");
    // Without an account it can only be one of the test login.
    let test_login = begin_old_session(&app, 7, clock.now()).await;
    app.refresh(&test_login).await.expect(StatusCode::OK);
    let aged = begin_old_session(&app, customer, clock.now() - Duration::days(90)).await;
    expect_over(app.refresh(&aged).await);

    let session = app.login(customer).await;
    session.post(LOGOUT_ALL, &json!({})).await.expect(StatusCode::NO_CONTENT);
    expect_over(app.refresh(&token(&pair)).await);
    clock.advance(Duration::milliseconds(1));
    let later = begin_old_session(&app, customer, clock.now()).await;
    app.refresh(&later).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn sessions_of_the_test_login_end_with_the_test_login() {
    let app = TestApp::start().await;
    let session = app.login_admin(7).await;
    let mut config = app.app.state.config.clone();
    config.auth.test_login = false;
    config.listen.set_port(0);
    let shutdown = shared::platform::shutdown::Shutdown::new();
    let production = api::app::App::start(config, Clock::System, &shutdown).await.expect("the API starts");
    let url = format!("http://{}{REFRESH}", production.addr);
    let request = reqwest::Client::new().post(url).json(&json!({"refresh_token": session.refresh}));
    expect_over(answer(request).await);
    app.refresh(&session.refresh).await.expect(StatusCode::OK);
    shutdown.begin();
    assert!(shutdown.drained(std::time::Duration::from_secs(30)).await);
}

#[tokio::test]
async fn used_tokens_are_removed_and_too_many_refreshes_at_once_end_no_session() {
    let clock = clock();
    let app = TestApp::with().clock(&clock).start().await;
    let mut tokens = vec![app.login(7).await.refresh];
    let mut pairs = Vec::new();
    for _ in 0..100 {
        let pair = app.refresh(tokens.last().expect("a token")).await.expect(StatusCode::OK);
        tokens.push(token(&pair));
        pairs.push(pair.bytes);
    }
    let mut redis = app.redis.connect().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("session:*").query_async(&mut redis).await.expect("keys");
    let fields = async |redis: &mut redis::aio::MultiplexedConnection| -> usize {
        redis::cmd("HLEN").arg(&keys).query_async(redis).await.expect("a number")
    };
    assert_eq!(fields(&mut redis).await, 65, "the current one and 64 spent ones");
    for index in 36..100 {
        let again = app.refresh(&tokens[index]).await.expect(StatusCode::OK);
        assert_eq!(again.bytes, pairs[index], "the same successor");
    }
    let forgotten = app.refresh(&tokens[0]).await;
    let forgotten = forgotten.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    assert!(forgotten.header("retry-after").is_some());

    clock.advance(Duration::seconds(11));
    tokens.push(token(&app.refresh(&tokens[100]).await.expect(StatusCode::OK)));
    assert_eq!(fields(&mut redis).await, 2, "what can no longer be asked for is gone");
    expect_over(app.refresh(&tokens[0]).await);
    expect_over(app.refresh(&tokens[101]).await);
}
