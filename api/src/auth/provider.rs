//! Tokens of an external identity provider: RS256, ES256 and `EdDSA`, checked with the keys it publishes (JWKS).
//!
//! The tenant of its tokens is a setting, and no token can name another one.
//!
//! A server that can answer at the URL of the keys can sign in as any customer. So the keys are read over TLS or from this
//! machine, redirects are not followed, and keys are used for a limited time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration as StdDuration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use reqwest::{StatusCode, redirect};
use serde::Deserialize;
use serde_json::Value;
use shared::domain::tenant::TenantId;
use time::{Duration, OffsetDateTime};
use tokio::sync::{Mutex, RwLock};

use super::{
    AuthError, Caller, ProviderConfig, Role, TokenError, accounts::LOCAL_IDS,
    unverified_token::UnverifiedToken,
};
use crate::tenants::{TenantError, Tenants};

/// An unknown key makes us fetch the keys again, at most this often: tokens with made-up keys must not flood the provider.
const REFETCH_AFTER: Duration = Duration::seconds(60);
/// The same while there are no usable keys, and every request with a token of the provider fails with 503.
const REFETCH_AFTER_WITHOUT_KEYS: Duration = Duration::seconds(5);
/// Keys older than this are fetched again, so that a withdrawn key is not trusted for ever.
const STALE_AFTER: Duration = Duration::hours(1);
/// Keys older than this are not used, even while the provider is down: one of them may have been withdrawn.
const UNUSABLE_AFTER: Duration = Duration::hours(24);
/// The largest set of keys that is read, in bytes. One key takes about 2 KiB with its certificate.
const MAX_SET_BYTES: usize = 256 * 1024;
/// How long the provider can take to return its keys.
const FETCH_TIMEOUT: StdDuration = StdDuration::from_secs(3);
/// How far the provider's clock can be from ours.
const LEEWAY: Duration = Duration::seconds(60);

/// An identity provider and the keys it last published.
pub(crate) struct IdentityProvider {
    config: ProviderConfig,
    client: reqwest::Client,
    keys: RwLock<Arc<ProviderKeys>>,
    /// When the keys were last fetched; locked while they are fetched, so that one request fetches them.
    last_fetch: Mutex<Option<OffsetDateTime>>,
    /// Whether it has said that `JWT_TENANT` names no tenant.
    has_warned: AtomicBool,
}

#[derive(Default)]
struct ProviderKeys {
    by_id: HashMap<String, ProviderKey>,
    fetched: Option<OffsetDateTime>,
}

pub(crate) struct ProviderKey {
    key: DecodingKey,
    algorithm: Algorithm,
}

/// Why the keys of the provider could not be fetched.
#[derive(Debug, thiserror::Error)]
enum KeyFetchError {
    #[error("the identity provider cannot be reached: {0}")]
    Http(#[from] reqwest::Error),
    #[error("the identity provider returned status {0} instead of its keys; redirects are not followed")]
    Status(StatusCode),
    #[error("the keys of the identity provider have more than {MAX_SET_BYTES} bytes")]
    TooLarge,
    #[error("the keys of the identity provider cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the identity provider publishes no key that can be used")]
    NoKeys,
    #[error("the keys of the identity provider could not be fetched a moment ago")]
    FailedLately,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

/// The claims that are read. Providers write the customer's id as a number or as text.
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
    /// May repeat the tenant that is set, by its number or its slug.
    #[serde(default)]
    tenant: Option<NumberOrText>,
    /// Providers name the purpose of a token in one of these three claims.
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

impl IdentityProvider {
    pub(crate) fn new(config: ProviderConfig) -> Result<Self, reqwest::Error> {
        let client =
            reqwest::Client::builder().timeout(FETCH_TIMEOUT).redirect(redirect::Policy::none()).build()?;
        Ok(Self {
            config,
            client,
            keys: RwLock::default(),
            last_fetch: Mutex::new(None),
            has_warned: AtomicBool::new(false),
        })
    }

    /// Returns the caller that a token of the provider names. Fails if there are no usable keys.
    pub(crate) async fn verify(
        &self,
        token: &UnverifiedToken<'_>,
        tenants: &Tenants,
        now: OffsetDateTime,
    ) -> Result<Caller, AuthError> {
        let algorithm = match token.header.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(TokenError::Algorithm.into()),
        };
        // A provider's tenant is set here, and its tokens have no extension that we understand.
        if token.tenant.is_some() {
            return Err(TokenError::Algorithm.into());
        }
        let kid = token.header.kid.as_deref().unwrap_or_default();
        let keys = self.keys_for(kid, now).await?;
        let key =
            keys.by_id.get(kid).filter(|key| key.algorithm == algorithm).ok_or(TokenError::Signature)?;
        let message = token.message.as_bytes();
        if !jsonwebtoken::crypto::verify(token.signature, message, &key.key, algorithm).unwrap_or(false) {
            return Err(TokenError::Signature.into());
        }
        let tenant =
            tenants.find(&self.config.tenant).await.inspect_err(|error| self.warn_of_tenant(error))?;
        let is_called = |text: &str| tenants.is_called(tenant, text);
        Ok(self.caller_from_claims(token.claims()?, tenant, is_called, now)?)
    }

    /// Says once that nobody can be let in.
    fn warn_of_tenant(&self, error: &TenantError) {
        if matches!(error, TenantError::Unknown) && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "JWT_TENANT names no tenant: all tokens of the identity provider are refused until there is one"
            );
        }
    }

    /// Returns keys with the key `kid`, if the provider has it.
    async fn keys_for(&self, kid: &str, now: OffsetDateTime) -> Result<Arc<ProviderKeys>, AuthError> {
        let keys = Arc::clone(&*self.keys.read().await);
        let younger_than = |age: Duration| keys.fetched.is_some_and(|at| age_of(at, now) < age);
        let is_known = keys.by_id.contains_key(kid);
        if is_known && younger_than(STALE_AFTER) {
            return Ok(keys);
        }
        // While another request fetches the keys, requests with a known key do not wait for it.
        if is_known && younger_than(UNUSABLE_AFTER) && self.last_fetch.try_lock().is_err() {
            return Ok(keys);
        }
        match self.refresh_keys(&keys, now).await {
            Ok(keys) => Ok(keys),
            // Known keys are used for a while if the provider is down.
            Err(_) if younger_than(UNUSABLE_AFTER) => Ok(keys),
            Err(error) => Err(AuthError::ProviderKeys(error.into())),
        }
    }

    /// Fetches the keys, unless another request has replaced `seen`, or a fetch was tried a moment ago.
    async fn refresh_keys(
        &self,
        seen: &Arc<ProviderKeys>,
        now: OffsetDateTime,
    ) -> Result<Arc<ProviderKeys>, KeyFetchError> {
        let mut last_fetch = self.last_fetch.lock().await;
        let current = Arc::clone(&*self.keys.read().await);
        if !Arc::ptr_eq(&current, seen) {
            return Ok(current);
        }
        let usable = current.fetched.is_some_and(|at| age_of(at, now) < UNUSABLE_AFTER);
        let pause = if usable { REFETCH_AFTER } else { REFETCH_AFTER_WITHOUT_KEYS };
        if last_fetch.is_some_and(|at| age_of(at, now) < pause) {
            return Err(KeyFetchError::FailedLately);
        }
        *last_fetch = Some(now);
        match self.fetch_keys(now).await {
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

    async fn fetch_keys(&self, now: OffsetDateTime) -> Result<ProviderKeys, KeyFetchError> {
        let mut response = self.client.get(&self.config.jwks_url).send().await?;
        if response.status() != StatusCode::OK {
            return Err(KeyFetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_SET_BYTES {
                return Err(KeyFetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let set: JwkSet = serde_json::from_slice(&body)?;
        let by_id: HashMap<String, ProviderKey> = set.keys.into_iter().filter_map(parse_key).collect();
        if by_id.is_empty() {
            return Err(KeyFetchError::NoKeys);
        }
        Ok(ProviderKeys { by_id, fetched: Some(now) })
    }

    /// Returns the caller that the claims name, if they are meant for us and for this tenant, and valid at this time. `is_called`
    /// says whether a text stands for the tenant.
    pub(crate) fn caller_from_claims(
        &self,
        claims: ProviderClaims,
        tenant: TenantId,
        is_called: impl Fn(&str) -> bool,
        now: OffsetDateTime,
    ) -> Result<Caller, TokenError> {
        let is_for_us = match &claims.aud {
            Audience::One(audience) => *audience == self.config.audience,
            Audience::Many(audiences) => audiences.contains(&self.config.audience),
        };
        if claims.iss != self.config.issuer || !is_for_us {
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
        let names_tenant = match &claims.tenant {
            Some(NumberOrText::Number(number)) => is_called(&number.to_string()),
            Some(NumberOrText::Text(text)) => is_called(text),
            None => true,
        };
        if !names_tenant {
            return Err(TokenError::NotForUs);
        }
        let customer_id = match claims.customer_id {
            Some(NumberOrText::Number(id)) => Some(id),
            Some(NumberOrText::Text(text)) => text.parse().ok(),
            None => claims.sub.and_then(|sub| sub.parse().ok()),
        };
        // The provider cannot name ids of local accounts.
        let customer_id = customer_id.filter(|id| !LOCAL_IDS.contains(id));
        let customer_id = customer_id.and_then(|id| id.try_into().ok()).ok_or(TokenError::NotForUs)?;
        // Its role reaches no further than its tenant: an operator's would reach all of them.
        let role = match claims.role.as_deref() {
            Some("admin") => Role::Admin,
            Some("auditor") => Role::Auditor,
            _ => Role::Customer,
        };
        Ok(Caller::at_home(tenant, customer_id, role))
    }
}

/// How far apart two times are, also if the clock was set back in between.
fn age_of(at: OffsetDateTime, now: OffsetDateTime) -> Duration {
    (now - at).abs()
}

/// Whether a token of this kind is an access token, and neither an ID token nor a refresh token.
fn is_for_access(kind: &str) -> bool {
    ["access", "bearer", "jwt", "at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

/// Returns a key that can sign tokens for us, with its id, or `None` if the key has another purpose.
pub(crate) fn parse_key(key: Value) -> Option<(String, ProviderKey)> {
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
    Some((id, ProviderKey { key: DecodingKey::from_jwk(&jwk).ok()?, algorithm }))
}
