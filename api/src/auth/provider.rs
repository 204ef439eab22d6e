//! Tokens of an external identity provider: RS256, ES256 and `EdDSA`, checked with the keys it publishes (JWKS).
//!
//! Whoever answers at the address of the keys can sign in as anybody. So they come over TLS or from this machine, from that
//! address itself, and count for a limited time.

use std::{collections::HashMap, sync::Arc, time::Duration as StdDuration};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use reqwest::{StatusCode, redirect};
use serde::Deserialize;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::sync::{Mutex, RwLock};

use super::{Caller, ProviderConfig, Role, TokenError, accounts::LOCAL_IDS, jwt::Unverified};
use crate::http::error::ApiError;

/// An unknown key makes us ask again, at most this often: tokens with made-up keys must not hammer the provider.
const ASK_AGAIN_AFTER: Duration = Duration::seconds(60);
/// The same while there are no keys that can be used, and every token of the provider is answered with 503.
const FIRST_ASK_AGAIN_AFTER: Duration = Duration::seconds(5);
/// Keys older than this are fetched anew, so that a withdrawn one is not trusted for ever.
const STALE_AFTER: Duration = Duration::hours(1);
/// Keys older than this are not used any more, also while the provider is down: one of them may have been withdrawn.
const UNUSABLE_AFTER: Duration = Duration::hours(24);
/// The largest set of keys that is read. One key takes about 2 KiB with its certificate.
const MAX_SET_BYTES: usize = 256 * 1024;
/// How long the provider may take.
const FETCH_TIMEOUT: StdDuration = StdDuration::from_secs(3);
/// How far the provider's clock may be from ours.
const LEEWAY: Duration = Duration::seconds(60);

/// One provider and the keys it last published.
pub(crate) struct Provider {
    config: ProviderConfig,
    client: reqwest::Client,
    keys: RwLock<Arc<Keys>>,
    /// When the provider was last asked; held while asking, so that it is asked once.
    asked: Mutex<Option<OffsetDateTime>>,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, Key>,
    fetched: Option<OffsetDateTime>,
}

pub(crate) struct Key {
    key: DecodingKey,
    algorithm: Algorithm,
}

/// The provider could not be asked for its keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the identity provider cannot be reached: {0}")]
    Http(#[from] reqwest::Error),
    #[error("the identity provider answers {0} instead of its keys; redirects are not followed")]
    Status(StatusCode),
    #[error("the keys of the identity provider have more than {MAX_SET_BYTES} bytes")]
    TooLarge,
    #[error("the keys of the identity provider cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the identity provider publishes no key that can be used")]
    NoKeys,
    #[error("the identity provider was asked for its keys a moment ago, in vain")]
    AskedLately,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

/// The claims that matter here. Providers write the customer's id as a number or as text.
#[derive(Deserialize)]
pub(crate) struct ProviderClaims {
    iss: String,
    aud: Audience,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    customer_id: Option<NumberOrText>,
    #[serde(default)]
    role: Option<String>,
    /// Three names under which providers say what the token is for.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    token_use: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

impl Provider {
    pub(crate) fn new(config: ProviderConfig) -> Result<Self, reqwest::Error> {
        let client =
            reqwest::Client::builder().timeout(FETCH_TIMEOUT).redirect(redirect::Policy::none()).build()?;
        Ok(Self { config, client, keys: RwLock::default(), asked: Mutex::new(None) })
    }

    /// Who a token of the provider speaks for. 503 where its keys have never been had.
    pub(crate) async fn verify(
        &self,
        token: &Unverified<'_>,
        now: OffsetDateTime,
    ) -> Result<Caller, ApiError> {
        let algorithm = match token.header.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(TokenError::Algorithm.into()),
        };
        let kid = token.header.kid.as_deref().unwrap_or_default();
        let keys = self.keys_for(kid, now).await?;
        let key =
            keys.by_id.get(kid).filter(|key| key.algorithm == algorithm).ok_or(TokenError::Signature)?;
        let message = token.message.as_bytes();
        if !jsonwebtoken::crypto::verify(token.signature, message, &key.key, algorithm).unwrap_or(false) {
            return Err(TokenError::Signature.into());
        }
        Ok(self.caller(token.claims()?, now)?)
    }

    /// Keys with the one asked for, where the provider has it.
    async fn keys_for(&self, kid: &str, now: OffsetDateTime) -> Result<Arc<Keys>, ApiError> {
        let keys = Arc::clone(&*self.keys.read().await);
        let younger_than = |age: Duration| keys.fetched.is_some_and(|at| now - at < age);
        let is_known = keys.by_id.contains_key(kid);
        if is_known && younger_than(STALE_AFTER) {
            return Ok(keys);
        }
        // One request asks, and those that can do without the answer do not wait for it.
        if is_known && younger_than(UNUSABLE_AFTER) && self.asked.try_lock().is_err() {
            return Ok(keys);
        }
        match self.ask(&keys, now).await {
            Ok(keys) => Ok(keys),
            // Those that are there go on holding for a while when the provider is down.
            Err(_) if younger_than(UNUSABLE_AFTER) => Ok(keys),
            Err(error) => Err(ApiError::unavailable(error)),
        }
    }

    /// Fetches the keys, unless somebody else has done so since `seen`, or the provider was asked a moment ago.
    async fn ask(&self, seen: &Arc<Keys>, now: OffsetDateTime) -> Result<Arc<Keys>, FetchError> {
        let mut asked = self.asked.lock().await;
        let current = Arc::clone(&*self.keys.read().await);
        if !Arc::ptr_eq(&current, seen) {
            return Ok(current);
        }
        let usable = current.fetched.is_some_and(|at| now - at < UNUSABLE_AFTER);
        let pause = if usable { ASK_AGAIN_AFTER } else { FIRST_ASK_AGAIN_AFTER };
        if asked.is_some_and(|at| now - at < pause) {
            return Err(FetchError::AskedLately);
        }
        *asked = Some(now);
        match self.fetch(now).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                *self.keys.write().await = Arc::clone(&keys);
                Ok(keys)
            }
            Err(error) => {
                tracing::warn!(error = %error, "the keys of the identity provider could not be fetched");
                Err(error)
            }
        }
    }

    async fn fetch(&self, now: OffsetDateTime) -> Result<Keys, FetchError> {
        let mut response = self.client.get(&self.config.jwks_url).send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_SET_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let set: JwkSet = serde_json::from_slice(&body)?;
        let by_id: HashMap<String, Key> = set.keys.into_iter().filter_map(usable).collect();
        if by_id.is_empty() {
            return Err(FetchError::NoKeys);
        }
        Ok(Keys { by_id, fetched: Some(now) })
    }

    pub(crate) fn caller(&self, claims: ProviderClaims, now: OffsetDateTime) -> Result<Caller, TokenError> {
        let ours = match &claims.aud {
            Audience::One(audience) => *audience == self.config.audience,
            Audience::Many(audiences) => audiences.contains(&self.config.audience),
        };
        if claims.iss != self.config.issuer || !ours {
            return Err(TokenError::NotForUs);
        }
        let kinds = [&claims.kind, &claims.typ, &claims.token_use];
        if !kinds.into_iter().flatten().all(|kind| is_for_access(kind)) {
            return Err(TokenError::WrongType);
        }
        let at = |seconds: f64| Duration::saturating_seconds_f64(seconds);
        let now = now - OffsetDateTime::UNIX_EPOCH;
        if at(claims.exp).saturating_add(LEEWAY) <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| at(nbf).saturating_sub(LEEWAY) > now) {
            return Err(TokenError::NotYetValid);
        }
        let customer_id = match claims.customer_id {
            Some(NumberOrText::Number(id)) => Some(id),
            Some(NumberOrText::Text(text)) => text.parse().ok(),
            None => claims.sub.and_then(|sub| sub.parse().ok()),
        };
        // Ids of local accounts are nobody's at the provider.
        let customer_id = customer_id.filter(|id| !LOCAL_IDS.contains(id));
        let customer_id = customer_id.and_then(|id| id.try_into().ok()).ok_or(TokenError::NotForUs)?;
        let role = match claims.role.as_deref() {
            Some("admin") => Role::Admin,
            _ => Role::Customer,
        };
        Ok(Caller { customer_id, role })
    }
}

/// Whether a token that says this of itself is an access token, and neither an ID token nor a refresh token.
fn is_for_access(kind: &str) -> bool {
    ["access", "bearer", "jwt", "at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

/// A key that may sign tokens for us, by its id. Others in the set are for other purposes.
pub(crate) fn usable(key: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let for_signing = jwk.common.public_key_use.as_ref().is_none_or(|kind| *kind == PublicKeyUse::Signature);
    let other = jwk.common.key_algorithm.is_some_and(|named| named.to_string() != format!("{algorithm:?}"));
    if !for_signing || other {
        return None;
    }
    let id = jwk.common.key_id.clone().unwrap_or_default();
    Some((id, Key { key: DecodingKey::from_jwk(&jwk).ok()?, algorithm }))
}
