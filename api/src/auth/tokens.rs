//! Signing and verifying our own tokens: HS256 with `JWT_SECRET`.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use quick_cache::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use shared::domain::tenant::TenantId;
use time::{Duration, OffsetDateTime};

use super::{
    AuthConfig, AuthError, Caller, TokenError,
    claims::{SignedClaims, TokenId, TokenKind, VerifiedClaims},
    unverified_token::{TENANT_HEADER, UnverifiedToken},
};

/// The algorithm of our own tokens.
pub(crate) const ALGORITHM: &str = "HS256";

/// How long an access token is valid.
pub const ACCESS_LIFETIME: Duration = Duration::minutes(30);
/// How long a refresh token can be exchanged.
pub const REFRESH_LIFETIME: Duration = Duration::days(7);

/// Clocks of replicas differ; a token from further in the future than this was not made by one of them.
const CLOCK_SKEW: Duration = Duration::seconds(60);

/// The access tokens whose claims are cached, at a few hundred bytes each.
const CACHED_TOKENS: usize = 16 * 1024;

/// The keys that sign and verify tokens, and the claims of access tokens that were verified.
pub(crate) struct TokenKeys {
    sign: EncodingKey,
    /// The current one first.
    verify: Vec<DecodingKey>,
    /// The claims of access tokens whose signature is valid. A signature stays valid; the times are checked each time.
    verified: Cache<Box<str>, VerifiedClaims>,
}

/// A refresh token that was verified.
pub struct RefreshToken {
    pub(crate) caller: Caller,
    /// The `jti` that [`TokenKeys::sign_refresh`] was given: the ids of the session and of the token.
    pub(crate) jti: String,
    /// When it was signed, in seconds since the Unix epoch.
    pub(crate) issued_at: i64,
}

impl TokenKeys {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        let key = |secret: &SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self {
            sign: EncodingKey::from_secret(config.secret.expose_secret().as_bytes()),
            verify: std::iter::once(&config.secret).chain(&config.previous_secrets).map(key).collect(),
            verified: Cache::new(CACHED_TOKENS),
        }
    }

    /// Signs an access token. Equal arguments give equal tokens.
    pub(crate) fn sign_access(
        &self,
        caller: Caller,
        jti: &str,
        at: OffsetDateTime,
    ) -> Result<String, AuthError> {
        self.sign_token(caller, TokenKind::Access, jti, at, ACCESS_LIFETIME)
    }

    /// Signs a refresh token. Equal arguments give equal tokens.
    pub(crate) fn sign_refresh(
        &self,
        caller: Caller,
        jti: &str,
        at: OffsetDateTime,
    ) -> Result<String, AuthError> {
        self.sign_token(caller, TokenKind::Refresh, jti, at, REFRESH_LIFETIME)
    }

    fn sign_token(
        &self,
        caller: Caller,
        kind: TokenKind,
        jti: &str,
        at: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<String, AuthError> {
        let claims = SignedClaims {
            sub: caller.customer_id.to_string(),
            customer_id: caller.customer_id,
            tenant: caller.home,
            role: caller.role,
            kind,
            iat: at.unix_timestamp(),
            exp: (at + lifetime).unix_timestamp(),
            jti,
        };
        jsonwebtoken::encode(&header_of(caller.home), &claims, &self.sign).map_err(AuthError::internal)
    }

    /// Verifies an access token whose claims are cached. Returns `None` for any other token.
    pub(crate) fn verify_known_access(
        &self,
        token: &str,
        now: OffsetDateTime,
    ) -> Option<Result<Caller, TokenError>> {
        self.verified.get(token).map(|claims| claims.caller_at(now))
    }

    /// Returns the caller that an access token names.
    pub(crate) fn verify_access(
        &self,
        token: &UnverifiedToken<'_>,
        now: OffsetDateTime,
    ) -> Result<Caller, TokenError> {
        let claims = self.verify_signature(token, TokenKind::Access)?;
        let caller = claims.caller_at(now)?;
        self.verified.insert(token.text.into(), claims);
        Ok(caller)
    }

    /// Checks the signature and the times of a refresh token. Whether it was used before is known by the session.
    pub(crate) fn verify_refresh(
        &self,
        token: &str,
        now: OffsetDateTime,
    ) -> Result<RefreshToken, TokenError> {
        let token = UnverifiedToken::parse(token)?;
        let claims = self.verify_signature(&token, TokenKind::Refresh)?;
        let caller = claims.caller_at(now)?;
        Ok(RefreshToken { caller, jti: token.claims::<TokenId>()?.jti, issued_at: claims.iat })
    }

    /// Returns the claims of a token that one of our keys has signed.
    fn verify_signature(
        &self,
        token: &UnverifiedToken<'_>,
        kind: TokenKind,
    ) -> Result<VerifiedClaims, TokenError> {
        // The header must never choose another algorithm for our secret.
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
        let claims: VerifiedClaims = token.claims()?;
        if token.tenant.is_some_and(|tenant| tenant != claims.tenant) {
            return Err(TokenError::Malformed);
        }
        if claims.kind == kind { Ok(claims) } else { Err(TokenError::WrongType) }
    }
}

/// The header of a token. That of another tenant than the default one says that it must be understood.
fn header_of(tenant: TenantId) -> Header {
    let mut header = Header::new(Algorithm::HS256);
    if !tenant.is_default() {
        header.crit = Some(vec![TENANT_HEADER.to_owned()]);
        header.extras.insert(TENANT_HEADER, tenant);
    }
    header
}

impl VerifiedClaims {
    /// Returns the caller, if the token is valid at this time.
    fn caller_at(&self, now: OffsetDateTime) -> Result<Caller, TokenError> {
        let now = now.unix_timestamp();
        if self.exp <= now {
            return Err(TokenError::Expired);
        }
        let latest = now.saturating_add(CLOCK_SKEW.whole_seconds());
        if self.nbf.is_some_and(|nbf| nbf > now) || self.iat > latest {
            return Err(TokenError::NotYetValid);
        }
        Ok(Caller::at_home(self.tenant, self.customer_id, self.role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    #[test]
    fn a_cached_access_token_expires_like_any_other_and_a_refresh_token_is_not_cached() {
        let secret = SecretString::from("a key of thirty-two bytes or more");
        let config = AuthConfig {
            secret,
            previous_secrets: Vec::new(),
            provider: None,
            test_login: false,
            local_accounts: true,
        };
        let keys = TokenKeys::new(&config);
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let caller = Caller::at_home(TenantId::DEFAULT, 7.try_into().unwrap(), Role::Customer);
        let verify = |text: &str| keys.verify_access(&UnverifiedToken::parse(text).unwrap(), now);

        let access = keys.sign_access(caller, "one", now).unwrap();
        assert_eq!(keys.verify_known_access(&access, now), None);
        assert_eq!(verify(&access), Ok(caller));
        assert_eq!(keys.verify_known_access(&access, now), Some(Ok(caller)));
        let expired = keys.verify_known_access(&access, now + ACCESS_LIFETIME);
        assert_eq!(expired, Some(Err(TokenError::Expired)));
        let early = keys.verify_known_access(&access, now - CLOCK_SKEW - Duration::SECOND);
        assert_eq!(early, Some(Err(TokenError::NotYetValid)));

        let refresh = keys.sign_refresh(caller, "one", now).unwrap();
        assert_eq!(verify(&refresh), Err(TokenError::WrongType));
        assert_eq!(keys.verify_known_access(&refresh, now), None);
        let (signed, _) = access.rsplit_once('.').unwrap();
        let forged = format!("{signed}.AAAA");
        assert_eq!(verify(&forged), Err(TokenError::Signature));
        assert_eq!(keys.verify_known_access(&forged, now), None);
    }
}
