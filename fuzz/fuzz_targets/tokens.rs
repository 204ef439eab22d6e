//! Bearer tokens: no token is accepted without the key, and no signed claims make the reader panic.

#![no_main]

use std::sync::LazyLock;

use api::{
    auth::{ACCESS_LIFETIME, Auth, AuthConfig, Caller, ProviderConfig, Role, TokenError, fuzzing},
    http::{
        auth::fuzzing::bearer_token,
        error::{ApiError, Code},
    },
    tenants::Tenants,
};
use axum::http::{HeaderMap, HeaderValue, header};
use fuzz::{check_problem, choice};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use serde_json::Value;
use shared::platform::{
    db::{DbPool, PoolSettings, Servers},
    redis::Redis,
    shutdown::Shutdown,
};
use time::{OffsetDateTime, macros::datetime};
use tokio::runtime::Runtime;

const SECRET: &str = "a secret of the fuzz targets, of 32 bytes or more";
const NOW: OffsetDateTime = datetime!(2025-06-30 12:00 UTC);

/// Reads the claims of a provider's token.
type ReadClaims = Box<dyn Fn(&[u8], OffsetDateTime) -> Option<Result<Caller, TokenError>> + Send + Sync>;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

static AUTH: LazyLock<Auth> = LazyLock::new(|| {
    let _inside = RUNTIME.enter();
    // No token is looked up in Redis.
    let redis = Redis::new(&SecretString::from("redis://127.0.0.1:1/".to_owned())).expect("an address");
    let config = AuthConfig {
        secret: SecretString::from(SECRET.to_owned()),
        previous_secrets: Vec::new(),
        provider: None,
        test_login: false,
        local_accounts: true,
    };
    // Nor is a tenant in PostgreSQL.
    let servers = Servers::primary(&SecretString::from("postgres://127.0.0.1:1/none".to_owned()));
    let db = DbPool::new(servers.expect("an address"), PoolSettings::new("fuzz", 1));
    let shutdown = Shutdown::new();
    shutdown.begin();
    Auth::new(&config, redis, Tenants::start(&db, &shutdown)).expect("nothing to connect to")
});

static PROVIDER: LazyLock<ReadClaims> = LazyLock::new(|| {
    Box::new(fuzzing::provider_claims(ProviderConfig {
        jwks_url: "http://127.0.0.1:1/".to_owned(),
        issuer: "us".to_owned(),
        audience: "orders".to_owned(),
        tenant: "1".parse().expect("a number"),
    }))
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, input)) = choice(data) else { return };
    match choice % 4 {
        0 => check_header(input),
        1 => check_signed_claims(input),
        2 => check_provider_claims(input),
        _ => {
            let _usable = fuzzing::provider_key(input);
        }
    }
});

/// A header that any client can send. Without the key no token is accepted.
fn check_header(header: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(header) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, value);
    match bearer_token(&headers) {
        Ok(token) => {
            let refused = verify(token).expect_err("nobody has the key");
            expect_unauthenticated(&refused);
            let refused = AUTH.verify_refresh(token, NOW).map(|_| ());
            expect_unauthenticated(&refused.expect_err("nobody has the key").into());
        }
        Err(error) => expect_unauthenticated(&error.into()),
    }
}

/// Claims under our own key, as an older or newer version of this program might have signed them.
fn check_signed_claims(claims: &[u8]) {
    let message = format!("{}.{}", encoded(br#"{"typ":"JWT","alg":"HS256"}"#), encoded(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    match verify(&format!("{message}.{signature}")) {
        Ok(caller) => {
            // Claims that are ignored may not be valid text.
            let Ok(claims) = serde_json::from_slice::<Value>(claims) else { return };
            assert_eq!(claims["customer_id"], caller.customer_id.get());
            assert_eq!(claims["type"], "access");
            assert_eq!(claims["role"], caller.role.as_str());
            assert_eq!(claims.get("tenant").map_or(Some(1), Value::as_i64), Some(caller.tenant.get().into()));
            assert!(claims["exp"].as_i64().is_some_and(|expires| expires > NOW.unix_timestamp()));
            let latest = NOW + ACCESS_LIFETIME;
            assert!(claims["iat"].as_i64().is_some_and(|issued| issued < latest.unix_timestamp()));
        }
        Err(error) => expect_unauthenticated(&error),
    }
}

fn check_provider_claims(claims: &[u8]) {
    let Some(Ok(caller)) = PROVIDER(claims, NOW) else { return };
    // Claims that are ignored may not be valid text.
    let Ok(claims) = serde_json::from_slice::<Value>(claims) else { return };
    assert_eq!(claims["iss"], "us");
    assert!(
        claims["aud"] == "orders"
            || claims["aud"].as_array().is_some_and(|all| all.contains(&"orders".into()))
    );
    assert!(claims["exp"].as_f64().is_some_and(|expires| expires > 0.0));
    assert_eq!(caller.role == Role::Admin, claims["role"] == "admin");
    assert!(caller.role != Role::Operator, "a provider has operators of no tenant but its own");
    assert_eq!(caller.tenant.get(), 1);
    assert!(claims.get("tenant").is_none_or(|tenant| *tenant == 1 || *tenant == "1" || tenant.is_null()));
}

fn verify(token: &str) -> Result<Caller, ApiError> {
    Ok(RUNTIME.block_on(AUTH.verify_access(token, NOW))?)
}

/// Asserts that it is a 401 with its challenge.
fn expect_unauthenticated(error: &ApiError) {
    check_problem(error, &[Code::Unauthenticated]);
    let challenge = error.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    assert!(challenge.is_some_and(|challenge| challenge.starts_with("Bearer realm=")), "{challenge:?}");
}

/// URL-safe Base64 without padding.
fn encoded(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |chunk: &[u8]| {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |digit| char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]))
    };
    bytes.chunks(3).flat_map(|chunk| digits(chunk).collect::<Vec<char>>()).collect()
}
