//! Tokens of an external identity provider: RS256, ES256 and `EdDSA`, checked with the keys it publishes (JWKS).

use std::{collections::HashMap, sync::Arc, time::Duration as StdDuration};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::sync::{Mutex, RwLock};

use super::{Caller, ProviderConfig, Role, TokenError, jwt::Unverified};
use crate::error::ApiError;

/// An unknown key makes us ask again, at most this often: tokens with made-up keys must not hammer the provider.
const ASK_AGAIN_AFTER: Duration = Duration::seconds(60);
/// The same while no keys have been had at all, and every token of the provider is answered with 503.
const FIRST_ASK_AGAIN_AFTER: Duration = Duration::seconds(5);
/// Keys older than this are fetched anew, so that a withdrawn one is not trusted for ever.
const STALE_AFTER: Duration = Duration::hours(1);
/// How long the provider may take.
const FETCH_TIMEOUT: StdDuration = StdDuration::from_secs(3);
/// How far the provider's clock may be from ours.
const LEEWAY: Duration = Duration::seconds(60);

/// One provider and the keys it last published.
pub(super) struct Provider {
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

pub(super) struct Key {
    key: DecodingKey,
    algorithm: Algorithm,
}

/// The provider could not be asked for its keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the identity provider cannot be reached: {0}")]
    Http(#[from] reqwest::Error),
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
pub(super) struct ProviderClaims {
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
    #[serde(default, rename = "type")]
    kind: Option<String>,
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
    pub(super) fn new(config: ProviderConfig) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build()?;
        Ok(Self { config, client, keys: RwLock::default(), asked: Mutex::new(None) })
    }

    /// Who a token of the provider speaks for. 503 where its keys have never been had.
    pub(super) async fn verify(
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
        let fresh = keys.fetched.is_some_and(|at| now - at < STALE_AFTER);
        if fresh && keys.by_id.contains_key(kid) {
            return Ok(keys);
        }
        match self.ask(&keys, now).await {
            Ok(keys) => Ok(keys),
            // Those that are there go on holding while the provider is down.
            Err(_) if keys.fetched.is_some() => Ok(keys),
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
        let pause = if current.fetched.is_some() { ASK_AGAIN_AFTER } else { FIRST_ASK_AGAIN_AFTER };
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
        let response = self.client.get(&self.config.jwks_url).send().await?.error_for_status()?;
        let set: JwkSet = response.json().await?;
        let by_id: HashMap<String, Key> = set.keys.into_iter().filter_map(usable).collect();
        if by_id.is_empty() {
            return Err(FetchError::NoKeys);
        }
        Ok(Keys { by_id, fetched: Some(now) })
    }

    pub(super) fn caller(&self, claims: ProviderClaims, now: OffsetDateTime) -> Result<Caller, TokenError> {
        let ours = match &claims.aud {
            Audience::One(audience) => *audience == self.config.audience,
            Audience::Many(audiences) => audiences.contains(&self.config.audience),
        };
        if claims.iss != self.config.issuer || !ours {
            return Err(TokenError::NotForUs);
        }
        if claims.kind.as_deref() == Some("refresh") {
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
        let customer_id = customer_id.and_then(|id| id.try_into().ok()).ok_or(TokenError::NotForUs)?;
        let role = match claims.role.as_deref() {
            Some("admin") => Role::Admin,
            _ => Role::Customer,
        };
        Ok(Caller { customer_id, role })
    }
}

/// A key that may sign tokens for us, by its id. Others in the set are for other purposes.
pub(super) fn usable(key: Value) -> Option<(String, Key)> {
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
