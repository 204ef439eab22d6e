//! Access tokens, signed as the API signs them: the measured API runs without its test login.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use shared::domain::clock::Clock;
use uuid::Uuid;

/// Signs the tokens of the systems that the bench starts.
pub const SECRET: &str = "the bench signs its own tokens with this and nothing else";

/// Longer than any bench.
const VALID: Duration = Duration::from_hours(6);

#[derive(Serialize)]
struct Claims {
    sub: String,
    customer_id: i64,
    role: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    iat: i64,
    exp: i64,
    jti: Uuid,
}

/// An access token of this customer.
pub fn access(customer_id: i64) -> anyhow::Result<String> {
    sign(customer_id, "customer")
}

/// An access token of this administrator.
pub fn admin(customer_id: i64) -> anyhow::Result<String> {
    sign(customer_id, "admin")
}

fn sign(customer_id: i64, role: &'static str) -> anyhow::Result<String> {
    let now = Clock::System.now();
    let claims = Claims {
        sub: customer_id.to_string(),
        customer_id,
        role,
        kind: "access",
        iat: now.unix_timestamp(),
        exp: (now + VALID).unix_timestamp(),
        jti: Uuid::now_v7(),
    };
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))?)
}
