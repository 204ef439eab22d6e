//! Signing and verifying our own tokens: HS256 with `JWT_SECRET`.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use quick_cache::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime};

use super::{
    AuthConfig, Caller, TokenError,
    claims::{Claims, Identified, Kind, Verified},
    jwt::Unverified,
};
use crate::http::error::ApiError;

/// The one algorithm of our own tokens.
pub(crate) const ALGORITHM: &str = "HS256";

/// How long an access token opens the API.
pub const ACCESS_LIFETIME: Duration = Duration::minutes(30);
/// How long a refresh token can be exchanged.
pub const REFRESH_LIFETIME: Duration = Duration::days(7);

/// Clocks of replicas differ; a token from further in the future than this was not made by one of them.
const CLOCK_SKEW: Duration = Duration::seconds(60);

/// Access tokens whose signature is remembered, at a few hundred bytes each.
const REMEMBERED: usize = 16 * 1024;

/// The keys, built once.
pub(crate) struct Tokens {
    sign: EncodingKey,
    /// The current one first.
    verify: Vec<DecodingKey>,
    /// What access tokens say whose signature was found good. A signature does not change; time is looked at each time.
    known: Cache<Box<str>, Verified>,
}

/// A refresh token that was verified.
pub struct RefreshToken {
    pub(crate) caller: Caller,
    /// The session it belongs to and its place in it, as [`Tokens::refresh`] was told.
    pub(crate) jti: String,
    /// When it was signed, in seconds since the Unix epoch.
    pub(crate) issued_at: i64,
}

impl Tokens {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        let key = |secret: &SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self {
            sign: EncodingKey::from_secret(config.secret.expose_secret().as_bytes()),
            verify: std::iter::once(&config.secret).chain(&config.previous_secrets).map(key).collect(),
            known: Cache::new(REMEMBERED),
        }
    }

    /// Signs an access token. Equal arguments give equal tokens.
    pub(crate) fn access(&self, caller: Caller, jti: &str, at: OffsetDateTime) -> Result<String, ApiError> {
        self.signed(caller, Kind::Access, jti, at, ACCESS_LIFETIME)
    }

    /// Signs a refresh token. Equal arguments give equal tokens.
    pub(crate) fn refresh(&self, caller: Caller, jti: &str, at: OffsetDateTime) -> Result<String, ApiError> {
        self.signed(caller, Kind::Refresh, jti, at, REFRESH_LIFETIME)
    }

    fn signed(
        &self,
        caller: Caller,
        kind: Kind,
        jti: &str,
        at: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<String, ApiError> {
        let claims = Claims {
            sub: caller.customer_id.to_string(),
            customer_id: caller.customer_id,
            role: caller.role,
            kind,
            iat: at.unix_timestamp(),
            exp: (at + lifetime).unix_timestamp(),
            jti,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.sign).map_err(ApiError::internal)
    }

    /// Who an access token that was verified before speaks for; `None` for one that is not remembered.
    pub(crate) fn known_access(
        &self,
        token: &str,
        now: OffsetDateTime,
    ) -> Option<Result<Caller, TokenError>> {
        self.known.get(token).map(|claims| claims.caller_at(now))
    }

    /// Who an access token speaks for.
    pub(crate) fn verify_access(
        &self,
        token: &Unverified<'_>,
        now: OffsetDateTime,
    ) -> Result<Caller, TokenError> {
        let claims = self.signed_claims(token, Kind::Access)?;
        let caller = claims.caller_at(now)?;
        self.known.insert(token.text.into(), claims);
        Ok(caller)
    }

    /// What a refresh token stands for. Whether it is spent is the session's question.
    pub(crate) fn verify_refresh(
        &self,
        token: &str,
        now: OffsetDateTime,
    ) -> Result<RefreshToken, TokenError> {
        let token = Unverified::parse(token)?;
        let claims = self.signed_claims(&token, Kind::Refresh)?;
        let caller = claims.caller_at(now)?;
        Ok(RefreshToken { caller, jti: token.claims::<Identified>()?.jti, issued_at: claims.iat })
    }

    /// The claims of a token that one of our keys has signed.
    fn signed_claims(&self, token: &Unverified<'_>, kind: Kind) -> Result<Verified, TokenError> {
        // What the header names must never choose another for our secret.
        if token.header.alg != ALGORITHM {
            return Err(TokenError::Algorithm);
        }
        let signed_with = |key: &DecodingKey| {
            jsonwebtoken::crypto::verify(token.signature, token.message.as_bytes(), key, Algorithm::HS256)
                .unwrap_or(false)
        };
        if !self.verify.iter().any(signed_with) {
            return Err(TokenError::Signature);
        }
        let claims: Verified = token.claims()?;
        if claims.kind == kind { Ok(claims) } else { Err(TokenError::WrongType) }
    }
}

impl Verified {
    /// Who the token speaks for at this time.
    fn caller_at(&self, now: OffsetDateTime) -> Result<Caller, TokenError> {
        let now = now.unix_timestamp();
        if self.exp <= now {
            return Err(TokenError::Expired);
        }
        let latest = now.saturating_add(CLOCK_SKEW.whole_seconds());
        if self.nbf.is_some_and(|nbf| nbf > now) || self.iat > latest {
            return Err(TokenError::NotYetValid);
        }
        Ok(Caller { customer_id: self.customer_id, role: self.role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    #[test]
    fn a_remembered_token_opens_the_api_no_longer_than_any_other_and_a_refresh_token_is_not_remembered() {
        let secret = SecretString::from("a key of thirty-two bytes or more");
        let config = AuthConfig {
            secret,
            previous_secrets: Vec::new(),
            provider: None,
            test_login: false,
            local_accounts: true,
        };
        let tokens = Tokens::new(&config);
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let caller = Caller { customer_id: 7.try_into().unwrap(), role: Role::Customer };
        let verify = |text: &str| tokens.verify_access(&Unverified::parse(text).unwrap(), now);

        let access = tokens.access(caller, "one", now).unwrap();
        assert_eq!(tokens.known_access(&access, now), None);
        assert_eq!(verify(&access), Ok(caller));
        assert_eq!(tokens.known_access(&access, now), Some(Ok(caller)));
        let expired = tokens.known_access(&access, now + ACCESS_LIFETIME);
        assert_eq!(expired, Some(Err(TokenError::Expired)));
        let early = tokens.known_access(&access, now - CLOCK_SKEW - Duration::SECOND);
        assert_eq!(early, Some(Err(TokenError::NotYetValid)));

        let refresh = tokens.refresh(caller, "one", now).unwrap();
        assert_eq!(verify(&refresh), Err(TokenError::WrongType));
        assert_eq!(tokens.known_access(&refresh, now), None);
        let (signed, _) = access.rsplit_once('.').unwrap();
        let forged = format!("{signed}.AAAA");
        assert_eq!(verify(&forged), Err(TokenError::Signature));
        assert_eq!(tokens.known_access(&forged, now), None);
    }
}
