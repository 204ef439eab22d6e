//! Tokens of an identity provider, whose keys a real endpoint of the test publishes.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use aws_lc_rs::{encoding::AsDer as _, rsa, signature as lc};
use axum::{Json, Router, http::StatusCode as AxumStatus, response::IntoResponse as _, routing::get};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use lc::KeyPair as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::{Duration, macros::datetime};

use crate::support::{Answer, Options, TestApp, answer};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "orders";

/// A provider on a port of its own.
pub(crate) struct Provider {
    url: String,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
}

impl Provider {
    pub(crate) async fn start(keys: Vec<Value>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let (keys, asked, down) =
            (Arc::new(Mutex::new(keys)), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (served, count, closed) = (Arc::clone(&keys), Arc::clone(&asked), Arc::clone(&down));
        let answer = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let keys = served.lock().expect("no panic").clone();
            let up = !closed.load(Ordering::SeqCst);
            async move {
                if up {
                    Json(json!({"keys": keys})).into_response()
                } else {
                    AxumStatus::BAD_GATEWAY.into_response()
                }
            }
        };
        let router = Router::new().route("/keys", get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys, asked, down }
    }

    pub(crate) fn options(&self, clock: &Clock) -> Options {
        TestApp::with()
            .set("JWT_JWKS_URL", &*self.url)
            .set("JWT_ISSUER", ISSUER)
            .set("JWT_AUDIENCE", AUDIENCE)
            .clock(clock)
    }

    async fn app(&self, clock: &Clock) -> TestApp {
        self.options(clock).start().await
    }
}

/// Serves one answer at `/keys`, on a port of its own.
async fn serve(answer: axum::response::Response<String>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let router = Router::new().route("/keys", get(move || std::future::ready(answer.clone())));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A key pair of the provider: what it signs with, and what it publishes.
pub(crate) struct Key {
    id: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
    pub(crate) public: Value,
}

impl Key {
    fn rsa(id: &'static str) -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
        let der = pair.as_der().expect("PKCS #8");
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        let private = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a private key");
        Self::published(id, Algorithm::RS256, private)
    }

    fn ec(id: &'static str) -> Self {
        let pair = lc::EcdsaKeyPair::generate(&lc::ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let der = pair.to_pkcs8v1().expect("PKCS #8");
        Self::published(id, Algorithm::ES256, EncodingKey::from_ec_der(der.as_ref()))
    }

    pub(crate) fn ed(id: &'static str) -> Self {
        let pair = lc::Ed25519KeyPair::generate().expect("a key");
        let der = pair.to_pkcs8().expect("PKCS #8");
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let public = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id, "use": "sig"});
        Self { id, algorithm: Algorithm::EdDSA, private: EncodingKey::from_ed_der(der.as_ref()), public }
    }

    fn published(id: &'static str, algorithm: Algorithm, private: EncodingKey) -> Self {
        let jwk = Jwk::from_encoding_key(&private, algorithm).expect("a public key");
        let mut public = serde_json::to_value(&jwk).expect("JSON");
        public["kid"] = id.into();
        Self { id, algorithm, private, public }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(self.algorithm, Some(self.id), claims)
    }

    fn sign_as(&self, algorithm: Algorithm, id: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(algorithm);
        header.kid = id.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.private).expect("a token")
    }
}

fn claims(clock: &Clock) -> Value {
    let now = clock.now().unix_timestamp();
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "77", "exp": now + 86_400, "iat": now})
}

pub(crate) fn with(clock: &Clock, changes: &Value) -> Value {
    let mut claims = claims(clock);
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

async fn ask(app: &TestApp, token: &str) -> Answer {
    answer(app.request(reqwest::Method::GET, "/api/v1/orders/1").bearer_auth(token)).await
}

fn clock() -> Clock {
    Clock::manual(datetime!(2025-01-20 10:00 UTC))
}

#[tokio::test]
async fn tokens_of_every_documented_algorithm_are_accepted_beside_our_own() {
    let clock = clock();
    let keys = [Key::rsa("r"), Key::ec("e"), Key::ed("d")];
    let provider = Provider::start(keys.iter().map(|key| key.public.clone()).collect()).await;
    let app = provider.app(&clock).await;
    for key in &keys {
        ask(&app, &key.sign(&claims(&clock))).await.expect(StatusCode::NOT_FOUND);
    }
    app.login(1).await.get("/api/v1/orders/1").await.expect(StatusCode::NOT_FOUND);
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "keys are kept");
}

#[tokio::test]
async fn the_claims_decide_the_customer_and_the_role() {
    let clock = clock();
    let key = Key::ed("d");
    let provider = Provider::start(vec![key.public.clone()]).await;
    let app = provider.app(&clock).await;
    let order = app.login(77).await;
    let order = order
        .post("/api/v1/orders", &json!({"order_date": "2025-01-20", "lines": [{"product_id": 1, "quantity": 1, "unit_price": "1.00"}]}))
        .await
        .expect(StatusCode::CREATED);
    let path = order.header("location").expect("Location").to_owned();
    let status = async |changes: Value| {
        let token = key.sign(&with(&clock, &changes));
        answer(app.request(reqwest::Method::GET, &path).bearer_auth(token)).await.status
    };
    assert_eq!(status(json!({})).await, StatusCode::OK, "a numeric sub is the customer");
    assert_eq!(status(json!({"sub": "someone", "customer_id": 77})).await, StatusCode::OK);
    assert_eq!(status(json!({"sub": "someone", "customer_id": "77"})).await, StatusCode::OK);
    assert_eq!(status(json!({"sub": "78"})).await, StatusCode::NOT_FOUND);
    assert_eq!(status(json!({"sub": "78", "role": "admin"})).await, StatusCode::OK);
    assert_eq!(status(json!({"sub": "someone"})).await, StatusCode::UNAUTHORIZED, "no customer is named");
    assert_eq!(status(json!({"aud": ["other", AUDIENCE]})).await, StatusCode::OK);
    for changes in [json!({"typ": "Bearer"}), json!({"token_use": "access"}), json!({"type": "access"})] {
        assert_eq!(status(changes).await, StatusCode::OK);
    }
    // Times beyond all calendars are times, too.
    assert_eq!(status(json!({"exp": 1e300, "nbf": -1e300})).await, StatusCode::OK);
}

#[tokio::test]
async fn tokens_of_another_audience_issuer_or_time_are_refused() {
    let clock = clock();
    let (key, stranger, rsa) = (Key::ec("e"), Key::ec("e"), Key::rsa("r"));
    let provider = Provider::start(vec![key.public.clone(), rsa.public.clone()]).await;
    let app = provider.app(&clock).await;
    let now = clock.now().unix_timestamp();
    for changes in [
        json!({"iss": "https://evil.example"}),
        json!({"iss": null}),
        json!({"aud": "shop"}),
        json!({"aud": ["shop"]}),
        json!({"aud": null}),
        json!({"exp": now - 61}),
        json!({"exp": null}),
        json!({"nbf": now + 61}),
        json!({"nbf": 1e300}),
        json!({"exp": -1e300}),
        json!({"type": "refresh"}),
        json!({"type": "id"}),
        json!({"typ": "Refresh"}),
        json!({"typ": "ID"}),
        json!({"token_use": "id"}),
        json!({"sub": "0"}),
        json!({"sub": "4503599627370496"}),
        json!({"customer_id": 9_007_199_254_740_991_i64}),
    ] {
        let refused = ask(&app, &key.sign(&with(&clock, &changes))).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{changes}");
        assert!(refused.header("www-authenticate").is_some_and(|value| value.contains("invalid_token")));
    }
    let good = claims(&clock);
    ask(&app, &stranger.sign(&good)).await.expect(StatusCode::UNAUTHORIZED);
    ask(&app, &rsa.sign_as(Algorithm::RS256, Some("e"), &good)).await.expect(StatusCode::UNAUTHORIZED);
    ask(&app, &rsa.sign_as(Algorithm::RS512, Some("r"), &good)).await.expect(StatusCode::UNAUTHORIZED);
    // The public key as an HMAC secret, which is the classic confusion.
    let public = rsa.public["n"].as_str().expect("a modulus");
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("r".to_owned());
    let confused =
        jsonwebtoken::encode(&header, &good, &EncodingKey::from_secret(public.as_bytes())).expect("a token");
    ask(&app, &confused).await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_unknown_key_is_fetched_at_most_once_a_minute() {
    let clock = clock();
    let (old, new) = (Key::ed("old"), Key::ed("new"));
    let provider = Provider::start(vec![old.public.clone()]).await;
    let app = provider.app(&clock).await;
    ask(&app, &old.sign(&claims(&clock))).await.expect(StatusCode::NOT_FOUND);

    provider.keys.lock().expect("no panic").push(new.public.clone());
    let token = new.sign(&claims(&clock));
    let answers = futures_util::future::join_all((0..10).map(|_| ask(&app, &token))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::UNAUTHORIZED));
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);

    clock.advance(Duration::seconds(60));
    let answers = futures_util::future::join_all((0..10).map(|_| ask(&app, &token))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::NOT_FOUND));
    assert_eq!(provider.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn keys_are_used_while_the_provider_is_down_and_not_after_it_withdraws_them() {
    let clock = clock();
    let (key, other) = (Key::ed("d"), Key::ed("other"));
    let provider = Provider::start(vec![key.public.clone()]).await;
    let app = provider.app(&clock).await;
    provider.down.store(true, Ordering::SeqCst);
    let token = key.sign(&claims(&clock));
    ask(&app, &token).await.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");

    provider.down.store(false, Ordering::SeqCst);
    clock.advance(Duration::seconds(5));
    ask(&app, &token).await.expect(StatusCode::NOT_FOUND);

    provider.down.store(true, Ordering::SeqCst);
    clock.advance(Duration::hours(2));
    ask(&app, &token).await.expect(StatusCode::NOT_FOUND);

    provider.down.store(false, Ordering::SeqCst);
    *provider.keys.lock().expect("no panic") = vec![other.public.clone()];
    clock.advance(Duration::hours(2));
    ask(&app, &token).await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn only_access_tokens_are_accepted() {
    let clock = clock();
    let key = Key::ed("d");
    let provider = Provider::start(vec![key.public.clone()]).await;
    let app = provider.app(&clock).await;
    let status = async |typ: Option<&str>| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("d".to_owned());
        header.typ = typ.map(str::to_owned);
        let token = jsonwebtoken::encode(&header, &claims(&clock), &key.private).expect("a token");
        ask(&app, &token).await.status
    };
    for typ in [None, Some("JWT"), Some("jwt"), Some("at+jwt"), Some("application/at+JWT")] {
        assert_eq!(status(typ).await, StatusCode::NOT_FOUND, "{typ:?}");
    }
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "application/json", "JWE", ""] {
        assert_eq!(status(Some(typ)).await, StatusCode::UNAUTHORIZED, "{typ:?}");
    }
}

#[tokio::test]
async fn keys_behind_a_redirect_and_endless_sets_of_keys_are_refused() {
    let clock = clock();
    let key = Key::ed("d");
    let provider = Provider::start(vec![key.public.clone()]).await;
    let answer = |status: AxumStatus, location: &str, body: String| {
        let answer = axum::response::Response::builder().status(status).header("location", location);
        answer.body(body).expect("an answer")
    };
    let padding = " ".repeat(256 * 1024);
    for source in [
        answer(AxumStatus::FOUND, &provider.url, String::new()),
        answer(AxumStatus::PERMANENT_REDIRECT, "/keys", json!({"keys": [key.public]}).to_string()),
        answer(AxumStatus::OK, "", json!({"keys": [key.public]}).to_string() + &padding),
    ] {
        let url = serve(source).await;
        let app = provider.options(&clock).set("JWT_JWKS_URL", url).start().await;
        let refused = ask(&app, &key.sign(&claims(&clock))).await;
        refused.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 0, "no redirect was followed");
}

#[tokio::test]
async fn keys_are_used_for_at_most_a_day_while_the_provider_is_down() {
    let clock = clock();
    let key = Key::ed("d");
    let provider = Provider::start(vec![key.public.clone()]).await;
    let app = provider.app(&clock).await;
    let token = || key.sign(&claims(&clock));
    ask(&app, &token()).await.expect(StatusCode::NOT_FOUND);
    provider.down.store(true, Ordering::SeqCst);
    clock.advance(Duration::hours(24) - Duration::seconds(1));
    ask(&app, &token()).await.expect(StatusCode::NOT_FOUND);
    clock.advance(Duration::seconds(1));
    let refused = ask(&app, &token()).await;
    refused.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    provider.down.store(false, Ordering::SeqCst);
    clock.advance(Duration::seconds(5));
    ask(&app, &token()).await.expect(StatusCode::NOT_FOUND);
}

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";

#[tokio::test]
async fn with_a_provider_local_accounts_exist_only_if_a_setting_allows_them() {
    let clock = clock();
    let provider = Provider::start(vec![Key::ed("d").public]).await;
    let ada = json!({"email": "ada@example.com", "password": "correct horse"});
    let app = provider.app(&clock).await;
    for path in [REGISTER, LOGIN] {
        app.post(path, &ada).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    }
    let document = app.get("/openapi.json").await.json;
    assert!(document["paths"][REGISTER].is_null() && document["paths"]["/api/v1/auth/refresh"].is_object());

    let app = TestApp::with().set("LOCAL_ACCOUNTS", "false").start().await;
    app.post(REGISTER, &ada).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn local_accounts_beside_a_provider_have_ids_that_it_cannot_name() {
    let clock = clock();
    let key = Key::ed("d");
    let provider = Provider::start(vec![key.public.clone()]).await;
    let app = provider.options(&clock).set("LOCAL_ACCOUNTS", "true").start().await;
    let ada = json!({"email": "ada@example.com", "password": "correct horse"});
    let opened = app.post(REGISTER, &ada).await.expect(StatusCode::CREATED);
    let id = opened.json["customer_id"].as_i64().expect("an id");
    assert!(((1 << 52)..(1_i64 << 53)).contains(&id), "{id}");
    let pair = app.post_until_available(LOGIN, &ada).await.expect(StatusCode::OK).json;
    let refresh = async |pair: &Value| {
        app.post("/api/v1/auth/refresh", &json!({"refresh_token": pair["refreshToken"]})).await
    };
    let pair = refresh(&pair).await.expect(StatusCode::OK).json;
    let token = key.sign(&with(&clock, &json!({"customer_id": id})));
    ask(&app, &token).await.expect(StatusCode::UNAUTHORIZED);

    // An account from before the provider was set has a number that a customer of the provider may have.
    sqlx::query("UPDATE accounts SET customer_id = 777 WHERE tenant_id = 1")
        .execute(&app.db)
        .await
        .expect("an account");
    app.post(LOGIN, &ada).await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    refresh(&pair).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}
