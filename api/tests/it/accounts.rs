//! Accounts: register, log in, and the limits of guessing.

use std::{
    net::IpAddr,
    time::{Duration as StdDuration, Instant},
};

use api::{http::auth::login::FROM_NETWORK, limits::LimitKey};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::{Duration, macros::datetime};

use crate::support::{Answer, TestApp, answer, server_address};

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";

#[tokio::test]
async fn a_registered_account_can_log_in() {
    let app = TestApp::start().await;
    let opened =
        app.post(REGISTER, &json!({"email": " Ada@Example.com ", "password": "correct horse"})).await;
    let opened = opened.expect(StatusCode::CREATED);
    let id = opened.json["customer_id"].as_i64().expect("an id");
    assert!(id > 0);
    let body = json!({"email": "ada@example.COM", "password": "correct horse"});
    let pair = app.post_until_available(LOGIN, &body).await.expect(StatusCode::OK);
    assert_eq!(pair.json["customerId"], id);
    app.refresh(pair.json["refreshToken"].as_str().expect("a token")).await.expect(StatusCode::OK);

    let stored: String = sqlx::query_scalar("SELECT password_hash FROM accounts WHERE tenant_id = 1")
        .fetch_one(&app.db)
        .await
        .expect("a row");
    assert!(stored.starts_with("$argon2id$"), "{stored}");
}

#[tokio::test]
async fn two_registrations_of_one_address_at_once_create_one_account() {
    let app = TestApp::start().await;
    let body = json!({"email": "ada@example.com", "password": "correct horse"});
    let answers = futures_util::future::join_all((0..4).map(|_| app.post(REGISTER, &body))).await;
    let created = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(created, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != StatusCode::CREATED) {
        answer.expect_problem(StatusCode::CONFLICT, "email_taken");
    }
}

#[tokio::test]
async fn a_password_has_8_to_128_characters_of_any_kind() {
    let app = TestApp::start().await;
    let try_with = async |index: usize, password: &str| {
        app.post(REGISTER, &json!({"email": format!("ada{index}@example.com"), "password": password})).await
    };
    let scattered = |index: u32| char::from_u32(0x4e00 + index * index * 37 % 0x5000).expect("a character");
    let longest: String = (0..128).map(scattered).collect();
    for (index, password) in ["Grünkohl", "🦀 🐙 🦑 🦐 🐚", &longest].into_iter().enumerate() {
        try_with(index, password).await.expect(StatusCode::CREATED);
    }
    let composed = "u\u{308}".repeat(4);
    for password in ["", "1234567", &"x".repeat(129), &format!("{longest}x"), &composed] {
        let refused = try_with(9, password).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), ["/password invalid_length"], "{password}");
    }
    let refused = try_with(9, "no\u{7}bells\0please").await;
    let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(refused.faults(), ["/password invalid_value"]);
    let refused = app.post(REGISTER, &json!({"email": "ada", "password": 8, "name": "Ada"})).await;
    let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(refused.faults(), ["/email invalid_value", "/name unknown_field", "/password invalid_type"]);
}

#[tokio::test]
async fn a_common_password_or_one_made_of_the_address_is_refused() {
    let app = TestApp::start().await;
    let email = "ada.lovelace@example.com";
    for password in ["aaaaaaaa", "password123", email, "ADA.LOVELACE@example.com", "example.com"] {
        let refused = app.post(REGISTER, &json!({"email": email, "password": password})).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), ["/password too_weak"], "{password}");
        assert!(!refused.json.to_string().contains(password), "it is not repeated");
    }
    let accounts: i64 = sqlx::query_scalar("SELECT count(*) FROM accounts WHERE tenant_id = 1")
        .fetch_one(&app.db)
        .await
        .unwrap();
    assert_eq!(accounts, 0);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_get_equal_responses() {
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
}

fn clock() -> Clock {
    Clock::manual(datetime!(2025-01-20 10:00 UTC))
}

fn credentials(email: &str, password: &str) -> Value {
    json!({"email": email, "password": password})
}

async fn open_account(app: &TestApp) {
    app.post(REGISTER, &credentials("ada@example.com", "correct horse")).await.expect(StatusCode::CREATED);
}

/// A login from behind a trusted proxy.
async fn log_in_from(app: &TestApp, address: &str, email: &str, password: &str) -> Answer {
    let request = app.request(Method::POST, LOGIN).header("x-forwarded-for", address.to_owned());
    answer(request.json(&credentials(email, password))).await
}

#[track_caller]
fn expect_limited(answer: Answer) -> i64 {
    let limited = answer.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    limited.header("retry-after").expect("Retry-After").parse().expect("seconds")
}

#[tokio::test]
async fn ten_failed_logins_to_an_account_are_429_with_retry_after() {
    let clock = clock();
    let app = TestApp::with().exact_limits(&clock).start().await;
    let replica = app.replica().await;
    open_account(&app).await;
    let other = replica.session(&app.login(1).await);
    let wrong = credentials("ada@example.com", "wrong horse");
    for index in 0..10 {
        let refused =
            if index % 2 == 0 { app.post(LOGIN, &wrong).await } else { other.post(LOGIN, &wrong).await };
        refused.expect(StatusCode::UNAUTHORIZED);
    }
    let right = credentials("Ada@example.com", "correct horse");
    let wait = expect_limited(app.post(LOGIN, &right).await);
    app.post(LOGIN, &credentials("bob@example.com", "wrong horse")).await.expect(StatusCode::UNAUTHORIZED);
    clock.advance(Duration::seconds(wait));
    app.post_until_available(LOGIN, &right).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_hundred_failed_logins_from_a_network_are_429_and_further_ones_count_for_no_account() {
    let app = TestApp::with().exact_limits(&clock()).set("TRUSTED_PROXIES", "1").start().await;
    open_account(&app).await;
    // Each guess costs a hash, so most of them are only counted.
    let network = LimitKey::Network(IpAddr::from([192, 0, 2, 1]).into());
    for _ in 0..97 {
        assert!(app.app.state.rate_limiter.count(FROM_NETWORK, network).await.allowed);
    }
    for account in 0..3 {
        let refused =
            log_in_from(&app, "192.0.2.1", &format!("nobody-{account}@example.com"), "wrong horse").await;
        refused.expect(StatusCode::UNAUTHORIZED);
    }
    let mut redis = app.redis.connect().await;
    let counts = async |redis: &mut redis::aio::MultiplexedConnection| -> u64 {
        redis::cmd("DBSIZE").query_async(redis).await.expect("a number")
    };
    let before = counts(&mut redis).await;
    for password in ["correct horse", "wrong horse"] {
        expect_limited(log_in_from(&app, "192.0.2.1", "ada@example.com", password).await);
    }
    assert_eq!(counts(&mut redis).await, before, "nothing is counted at the account");
    log_in_from(&app, "192.0.2.2", "ada@example.com", "correct horse").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn right_passwords_are_not_counted_and_many_at_once_all_log_in() {
    let app = TestApp::with().exact_limits(&clock()).start().await;
    open_account(&app).await;
    let right = credentials("ada@example.com", "correct horse");
    // A machine may be too slow for so many at once.
    let logins = (0..24).map(|_| app.post_until_available(LOGIN, &right));
    for login in futures_util::future::join_all(logins).await {
        login.expect(StatusCode::OK);
    }
    let mut redis = app.redis.connect().await;
    let counts: Vec<String> =
        redis::cmd("KEYS").arg("limit:login*").query_async(&mut redis).await.expect("names");
    assert!(counts.is_empty(), "{counts:?}");
}

#[tokio::test]
async fn guesses_at_once_are_limited_like_guesses_in_sequence() {
    let app = TestApp::with().exact_limits(&clock()).start().await;
    open_account(&app).await;
    let wrong = credentials("ada@example.com", "wrong horse");
    let answers = futures_util::future::join_all((0..24).map(|_| app.post(LOGIN, &wrong))).await;
    let is_heard = |answer: &Answer| answer.status == StatusCode::UNAUTHORIZED;
    let mut heard = answers.into_iter().filter(is_heard).count();
    // A machine may have been too slow for so many at once.
    let limited = loop {
        let answer = app.post(LOGIN, &wrong).await;
        if is_heard(&answer) {
            heard += 1;
        } else {
            break answer;
        }
    };
    expect_limited(limited);
    assert_eq!(heard, 10);
}

#[tokio::test]
async fn a_stranger_locks_no_owner_out_and_is_counted_by_its_network() {
    let app = TestApp::with().exact_limits(&clock()).set("TRUSTED_PROXIES", "1").start().await;
    open_account(&app).await;
    for index in 0..10 {
        let address = format!("2001:db8:0:1::{index}");
        let refused = log_in_from(&app, &address, "ada@example.com", "wrong horse").await;
        refused.expect(StatusCode::UNAUTHORIZED);
    }
    expect_limited(log_in_from(&app, "2001:db8:0:1:ffff::", "ada@example.com", "wrong horse").await);
    for owner in ["2001:db8:0:2::1", "192.0.2.1", "::ffff:192.0.2.2"] {
        log_in_from(&app, owner, "ada@example.com", "correct horse").await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn logins_that_an_outage_or_the_client_ends_are_not_counted() {
    let proxy = testbed::Proxy::start(server_address("DATABASE_URL")).await;
    let database = testbed::postgres().await;
    let url = database.url().replacen(&server_address("DATABASE_URL"), &proxy.addr().to_string(), 1);
    let options = TestApp::with().exact_limits(&clock()).set("DATABASE_URL", url);
    let app = TestApp::start_with(options, database, testbed::redis().await).await;
    open_account(&app).await;
    let right = credentials("ada@example.com", "correct horse");
    proxy.refuse().await;
    proxy.cut();
    let answers = futures_util::future::join_all((0..15).map(|_| app.post(LOGIN, &right))).await;
    assert!(answers.iter().all(|answer| answer.status.is_server_error()));
    proxy.accept().await;
    testbed::eventually("PostgreSQL is there again", async || {
        app.get("/api/v1/health/ready").await.status == StatusCode::OK
    })
    .await;
    for _ in 0..15 {
        let login = app.request(Method::POST, LOGIN).json(&right).send();
        let _given_up = tokio::time::timeout(StdDuration::from_millis(5), login).await;
    }
    testbed::eventually("the owner logs in", async || app.post(LOGIN, &right).await.status == StatusCode::OK)
        .await;
    let mut redis = app.redis.connect().await;
    let counts: Vec<String> =
        redis::cmd("KEYS").arg("limit:login*").query_async(&mut redis).await.expect("names");
    assert!(counts.is_empty(), "{counts:?}");
    app.drain().await;
}

#[tokio::test]
async fn a_network_can_open_sixty_accounts_an_hour() {
    let clock = clock();
    let app = TestApp::with().exact_limits(&clock).set("TRUSTED_PROXIES", "1").start().await;
    let open = async |address: &str| {
        let request = app.request(Method::POST, REGISTER).header("x-forwarded-for", address.to_owned());
        // A weak password is counted as well, and costs no hash.
        answer(request.json(&credentials("ada@example.com", "password"))).await
    };
    for index in 0..60 {
        open(&format!("2001:db8::{index}")).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    }
    let wait = expect_limited(open("2001:db8::ffff").await);
    open("2001:db8:0:1::1").await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    clock.advance(Duration::seconds(wait));
    open("2001:db8::ffff").await.expect(StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn logins_are_fast_during_hundreds_of_registrations() {
    let app = TestApp::with().exact_limits(&clock()).set("TRUSTED_PROXIES", "1").start().await;
    open_account(&app).await;
    let register = |index: usize| {
        let address = format!("192.0.2.{}", index % 10);
        let body = credentials(&format!("nobody-{index}@example.com"), "correct horse");
        answer(app.request(Method::POST, REGISTER).header("x-forwarded-for", address).json(&body))
    };
    let flood = futures_util::future::join_all((0..200).map(register));
    let logins = async {
        let mut slowest = StdDuration::ZERO;
        for _ in 0..5 {
            let start = Instant::now();
            let login = loop {
                let sent = Instant::now();
                let login = log_in_from(&app, "198.51.100.1", "ada@example.com", "correct horse").await;
                // A busy machine may not begin its hash within five seconds. If the registrations had its place, it would
                // be refused at once.
                if login.status != StatusCode::SERVICE_UNAVAILABLE
                    || sent.elapsed() < StdDuration::from_secs(4)
                {
                    break login;
                }
            };
            login.expect(StatusCode::OK);
            slowest = slowest.max(start.elapsed());
        }
        slowest
    };
    let (answers, slowest) = futures_util::future::join(flood, logins).await;
    assert!(slowest < StdDuration::from_secs(30), "{slowest:?}");
    let mut refused = 0;
    for answer in answers {
        match answer.status {
            StatusCode::CREATED => {}
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                assert!(answer.header("retry-after").is_some());
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(refused > 0, "the queue is bounded");
}
