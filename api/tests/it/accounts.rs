//! Accounts: register, log in, and what guessing gets.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{TestApp, answer};

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";

#[tokio::test]
async fn an_account_can_be_opened_and_logged_in_to() {
    let app = TestApp::start().await;
    let opened =
        app.post(REGISTER, &json!({"email": " Ada@Example.com ", "password": "correct horse"})).await;
    let opened = opened.expect(StatusCode::CREATED);
    let id = opened.json["customer_id"].as_i64().expect("an id");
    assert!(id > 0);
    let pair = app.post(LOGIN, &json!({"email": "ada@example.COM", "password": "correct horse"})).await;
    let pair = pair.expect(StatusCode::OK);
    assert_eq!(pair.json["customerId"], id);
    let refreshed =
        app.post("/api/v1/auth/refresh", &json!({"refresh_token": pair.json["refreshToken"]})).await;
    refreshed.expect(StatusCode::OK);

    let stored: String =
        sqlx::query_scalar("SELECT password_hash FROM accounts").fetch_one(&app.db).await.expect("a row");
    assert!(stored.starts_with("$argon2id$"), "{stored}");
    app.drain().await;
}

#[tokio::test]
async fn an_address_belongs_to_one_account_also_when_two_ask_at_once() {
    let app = TestApp::start().await;
    let body = json!({"email": "ada@example.com", "password": "correct horse"});
    let answers = futures_util::future::join_all((0..4).map(|_| app.post(REGISTER, &body))).await;
    let created = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(created, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != StatusCode::CREATED) {
        answer.expect_problem(StatusCode::CONFLICT, "email_taken");
    }
    app.drain().await;
}

#[tokio::test]
async fn a_password_has_8_to_128_characters_of_any_kind() {
    let app = TestApp::start().await;
    let try_with = async |index: usize, password: &str| {
        app.post(REGISTER, &json!({"email": format!("ada{index}@example.com"), "password": password})).await
    };
    for (index, password) in ["        ", &"ü".repeat(8), &"😀".repeat(128)].into_iter().enumerate() {
        try_with(index, password).await.expect(StatusCode::CREATED);
    }
    for password in ["", "1234567", &"x".repeat(129)] {
        let refused = try_with(9, password).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), ["/password invalid_length"]);
    }
    let refused = app.post(REGISTER, &json!({"email": "ada", "password": 8, "name": "Ada"})).await;
    let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(refused.faults(), ["/email invalid_value", "/name unknown_field", "/password invalid_type"]);
    app.drain().await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_are_answered_alike() {
    let app = TestApp::start().await;
    app.post(REGISTER, &json!({"email": "ada@example.com", "password": "correct horse"})).await;
    let mut answers = Vec::new();
    for email in ["ada@example.com", "nobody@example.com"] {
        let body = json!({"email": email, "password": "wrong horse"});
        let request = app.request(Method::POST, LOGIN).header("x-request-id", "same").json(&body);
        let refused = answer(request).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
        assert!(refused.header("www-authenticate").is_some());
        answers.push(refused.bytes);
    }
    assert_eq!(answers[0], answers[1]);
    app.drain().await;
}

#[tokio::test]
async fn guessing_at_an_account_ends_after_ten_failures_and_says_when_to_come_back() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let body = |email: &str, password: &str| json!({"email": email, "password": password});
    app.post(REGISTER, &body("ada@example.com", "correct horse")).await.expect(StatusCode::CREATED);
    // A good login is not counted.
    for _ in 0..3 {
        app.post(LOGIN, &body("ada@example.com", "correct horse")).await.expect(StatusCode::OK);
    }
    let other = replica.session(&app.login(1).await);
    let wrong = body("ada@example.com", "wrong horse");
    for index in 0..10 {
        let refused =
            if index % 2 == 0 { app.post(LOGIN, &wrong).await } else { other.post(LOGIN, &wrong).await };
        refused.expect(StatusCode::UNAUTHORIZED);
    }
    let limited = app.post(LOGIN, &body("Ada@example.com", "correct horse")).await;
    let limited = limited.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    assert!(limited.header("retry-after").is_some());
    app.post(LOGIN, &body("bob@example.com", "wrong horse")).await.expect(StatusCode::UNAUTHORIZED);
    replica.drain().await;
    app.drain().await;
}

#[tokio::test]
async fn guessing_from_an_address_ends_after_a_hundred_failures_on_whatever_accounts() {
    let app = TestApp::with().set("TRUSTED_PROXIES", "1").start().await;
    app.post(REGISTER, &json!({"email": "ada@example.com", "password": "correct horse"}))
        .await
        .expect(StatusCode::CREATED);
    let login = |address: &'static str, email: String, password: &'static str| {
        let body = json!({"email": email, "password": password});
        answer(app.request(Method::POST, LOGIN).header("x-forwarded-for", address).json(&body))
    };
    for account in 0..100 {
        let refused = login("192.0.2.1", format!("nobody-{account}@example.com"), "wrong horse").await;
        refused.expect(StatusCode::UNAUTHORIZED);
    }
    let ada = || "ada@example.com".to_owned();
    let limited = login("192.0.2.1", ada(), "correct horse").await;
    let limited = limited.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    assert!(limited.header("retry-after").is_some());
    login("192.0.2.2", ada(), "correct horse").await.expect(StatusCode::OK);
    app.drain().await;
}
