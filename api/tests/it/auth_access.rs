//! What does not open the API: 401 in every case, with a challenge that says why.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::{Duration, macros::datetime};

use crate::support::{Answer, SECRET, TestApp, answer};

const PROTECTED: &str = "/api/v1/orders/1";

async fn with_authorization(app: &TestApp, value: &str) -> Answer {
    answer(app.request(Method::GET, PROTECTED).header("authorization", value)).await
}

async fn with_token(app: &TestApp, token: &str) -> Answer {
    with_authorization(app, &format!("Bearer {token}")).await
}

/// The claims of a good access token at the time of the test.
fn good() -> Value {
    let now = Clock::System.now().unix_timestamp();
    json!({"sub": "1", "customer_id": 1, "role": "customer", "type": "access", "iat": now, "exp": now + 60, "jti": "x"})
}

fn changed(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn signed(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("a token")
}

/// A token with this header, signed by HMAC-SHA-256 with the right secret whatever the header says.
fn confused(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

#[track_caller]
fn expect_refused(answer: Answer, what: &str) {
    let answer = answer.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains(r#"error="invalid_token""#), "{what}: {challenge}");
}

#[tokio::test]
async fn without_a_token_the_challenge_has_no_error() {
    let app = TestApp::start().await;
    for value in ["", "Basic dXNlcjpwYXNz", "Bearer", "token"] {
        let answer = with_authorization(&app, value).await;
        let answer = answer.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="orders""#), "{value:?}");
    }
}

#[tokio::test]
async fn a_valid_token_is_accepted_with_any_spelling_of_the_scheme() {
    let app = TestApp::start().await;
    let token = signed(&good(), Algorithm::HS256, SECRET);
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let answer = with_authorization(&app, &format!("{scheme} {token}")).await;
        answer.expect_problem(StatusCode::NOT_FOUND, "not_found");
    }
}

#[tokio::test]
async fn a_token_with_an_algorithm_of_its_own_choice_is_refused() {
    let app = TestApp::start().await;
    for alg in ["none", "None", "RS256", "ES256", "EdDSA", "HS384", "hs256", ""] {
        let token = confused(&json!({"alg": alg, "typ": "JWT"}), &good());
        expect_refused(with_token(&app, &token).await, alg);
        let unsigned = token.rsplit_once('.').map(|(message, _)| format!("{message}.")).expect("a token");
        expect_refused(with_token(&app, &unsigned).await, alg);
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        expect_refused(with_token(&app, &signed(&good(), algorithm, SECRET)).await, "another HMAC");
    }
    let critical = confused(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &good());
    expect_refused(with_token(&app, &critical).await, "an extension that must be understood");
}

#[tokio::test]
async fn a_token_of_another_type_key_or_time_is_refused() {
    let app = TestApp::start().await;
    let now = Clock::System.now().unix_timestamp();
    let session = app.login(1).await;
    let other_secret = "some other secret, but just as long as ours";
    let wrong = [
        ("a refresh token", session.refresh.clone()),
        ("another secret", signed(&good(), Algorithm::HS256, other_secret)),
        ("an unknown type", signed(&changed("type", json!("id")), Algorithm::HS256, SECRET)),
        ("no type", signed(&changed("type", Value::Null), Algorithm::HS256, SECRET)),
        ("expired", signed(&changed("exp", json!(now - 1)), Algorithm::HS256, SECRET)),
        ("expiring now", signed(&changed("exp", json!(now)), Algorithm::HS256, SECRET)),
        ("no expiry", signed(&changed("exp", Value::Null), Algorithm::HS256, SECRET)),
        ("expiry as text", signed(&changed("exp", json!("9999999999")), Algorithm::HS256, SECRET)),
        ("not yet", signed(&changed("nbf", json!(now + 3600)), Algorithm::HS256, SECRET)),
        ("from the future", signed(&changed("iat", json!(now + 3600)), Algorithm::HS256, SECRET)),
        ("no customer", signed(&changed("customer_id", Value::Null), Algorithm::HS256, SECRET)),
        ("customer 0", signed(&changed("customer_id", json!(0)), Algorithm::HS256, SECRET)),
        ("an unknown role", signed(&changed("role", json!("root")), Algorithm::HS256, SECRET)),
    ];
    for (what, token) in wrong {
        expect_refused(with_token(&app, &token).await, what);
    }
    let refused = app.post("/api/v1/auth/refresh", &json!({"refresh_token": session.access})).await;
    expect_refused(refused, "an access token in place of a refresh token");
}

#[tokio::test]
async fn garbage_is_refused() {
    let app = TestApp::start().await;
    let good = signed(&good(), Algorithm::HS256, SECRET);
    let huge = format!("{good}{}", "A".repeat(20_000));
    let twice = format!("{good}.{good}");
    let changed = good.replacen("eyJ", "eyI", 1);
    for token in [
        "x",
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        &twice,
        &changed,
        &huge,
        &format!("{good}A"),
        &format!(".{good}"),
    ] {
        let answer = with_token(&app, token).await;
        answer.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
}

#[tokio::test]
async fn an_access_token_expires_after_thirty_minutes() {
    let clock = Clock::manual(datetime!(2025-01-20 10:00 UTC));
    let app = TestApp::with().clock(&clock).start().await;
    let session = app.login(1).await;
    clock.advance(Duration::minutes(30) - Duration::seconds(1));
    session.get(PROTECTED).await.expect(StatusCode::NOT_FOUND);
    clock.advance(Duration::seconds(1));
    expect_refused(session.get(PROTECTED).await, "after thirty minutes");
}

#[tokio::test]
async fn a_request_with_two_tokens_is_refused() {
    let app = TestApp::start().await;
    let token = format!("Bearer {}", signed(&good(), Algorithm::HS256, SECRET));
    let request =
        app.request(Method::GET, PROTECTED).header("authorization", &token).header("authorization", &token);
    answer(request).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}
