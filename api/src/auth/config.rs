//! The settings of authentication.

use std::net::IpAddr;

use secrecy::SecretString;
use shared::platform::config::{ConfigError, Env};

/// HS256 asks for a key of at least the hash's size (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The key of `.env.example` and `docker-compose.yml`. Everyone can read it, and so could sign tokens of anybody.
pub const PUBLISHED_SECRET: &str = "development-only-everyone-can-read-this-key";

/// Who may call, and how that is checked.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Signs and verifies.
    pub secret: SecretString,
    /// Verify, but never sign: for rotating the secret without logging anyone out.
    pub previous_secrets: Vec<SecretString>,
    /// An external identity provider, whose tokens are taken too.
    pub provider: Option<ProviderConfig>,
    /// Whether `login-test` exists.
    pub test_login: bool,
    /// Whether accounts with passwords exist: `register` and `login`.
    pub local_accounts: bool,
}

/// An external identity provider.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Where it publishes its keys.
    pub jwks_url: String,
    /// What its tokens' `iss` must be.
    pub issuer: String,
    /// What their `aud` must name.
    pub audience: String,
}

impl ProviderConfig {
    /// Reads `JWT_JWKS_URL`, `JWT_ISSUER` and `JWT_AUDIENCE`, which are set together or not at all: a token that was
    /// made for somebody else must not be taken.
    fn from_env(env: &Env) -> Result<Option<Self>, ConfigError> {
        let Some(jwks_url) = env.http_url("JWT_JWKS_URL")? else { return Ok(None) };
        if !is_safe_source_of_keys(&jwks_url) {
            return Err(ConfigError::new(
                "JWT_JWKS_URL",
                "may begin with http:// for a loopback address only, otherwise with https://: whoever can change the keys \
                 on their way can sign in as anybody",
            ));
        }
        Ok(Some(Self {
            jwks_url: jwks_url.into(),
            issuer: env.required("JWT_ISSUER")?.to_owned(),
            audience: env.required("JWT_AUDIENCE")?.to_owned(),
        }))
    }
}

impl AuthConfig {
    /// Reads `JWT_SECRET`, `JWT_PREVIOUS_SECRETS` (separated by commas), the identity provider's settings and
    /// `LOCAL_ACCOUNTS`.
    pub fn from_env(env: &Env, debug: bool) -> Result<Self, ConfigError> {
        let secret = |name, text| secret(name, text, debug);
        let previous_secrets = env
            .text("JWT_PREVIOUS_SECRETS")
            .unwrap_or_default()
            .split(',')
            .filter(|text| !text.trim().is_empty())
            .map(|text| secret("JWT_PREVIOUS_SECRETS", text.trim()))
            .collect::<Result<_, _>>()?;
        let secret = secret("JWT_SECRET", env.required("JWT_SECRET")?)?;
        let provider = ProviderConfig::from_env(env)?;
        // A customer of the provider must not find its orders in the hands of somebody who has registered here.
        let local_accounts = match env.text("LOCAL_ACCOUNTS") {
            Some(_) => env.flag("LOCAL_ACCOUNTS")?,
            None => provider.is_none(),
        };
        Ok(Self { secret, previous_secrets, provider, test_login: debug, local_accounts })
    }
}

/// Whether nobody on the way can change what a URL gives.
fn is_safe_source_of_keys(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_loopback =
        host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback());
    is_loopback || url.scheme() == "https"
}

fn secret(name: &'static str, text: &str, debug: bool) -> Result<SecretString, ConfigError> {
    if text.len() < MIN_SECRET_BYTES {
        return Err(ConfigError::new(
            name,
            format!("needs at least {MIN_SECRET_BYTES} bytes, for example from `openssl rand -base64 48`"),
        ));
    }
    if text == PUBLISHED_SECRET && !debug {
        let problem = "is the key of the development settings, which everyone can read: set another, for example from \
                       `openssl rand -base64 48`, or DEBUG=true";
        return Err(ConfigError::new(name, problem));
    }
    Ok(SecretString::from(text.to_owned()))
}
