//! The settings of authentication.

use std::net::IpAddr;

use secrecy::SecretString;
use shared::{
    domain::tenant::TenantId,
    platform::config::{ConfigError, Env},
};

use crate::tenants::TenantName;

/// HS256 asks for a key of at least the hash's size (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The key of `.env.example` and `docker-compose.yml`. Everyone can read it, and could sign tokens of any customer.
pub const PUBLISHED_SECRET: &str = "development-only-everyone-can-read-this-key";

/// The settings of authentication.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Signs and verifies tokens.
    pub secret: SecretString,
    /// Verify tokens, but never sign: for rotating the secret without ending sessions.
    pub previous_secrets: Vec<SecretString>,
    /// An external identity provider, whose tokens are accepted too.
    pub provider: Option<ProviderConfig>,
    /// Whether `login-test` exists.
    pub test_login: bool,
    /// Whether accounts with passwords exist: `register` and `login`.
    pub local_accounts: bool,
}

/// An external identity provider.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The URL of its keys.
    pub jwks_url: String,
    /// What `iss` of its tokens must be.
    pub issuer: String,
    /// What `aud` of its tokens must contain.
    pub audience: String,
    /// Whose customers they are.
    pub tenant: TenantName,
}

impl ProviderConfig {
    /// Reads `JWT_JWKS_URL`, `JWT_ISSUER` and `JWT_AUDIENCE`, which are set together or not at all: a token that was
    /// made for another service must not be accepted. `JWT_TENANT` is the default tenant if it is left out.
    fn from_env(env: &Env) -> Result<Option<Self>, ConfigError> {
        let Some(jwks_url) = env.http_url("JWT_JWKS_URL")? else { return Ok(None) };
        if !is_safe_source_of_keys(&jwks_url) {
            return Err(ConfigError::new(
                "JWT_JWKS_URL",
                "must begin with https://, or with http:// and a loopback address: a third party that can change the \
                 keys on their way can sign in as any customer",
            ));
        }
        Ok(Some(Self {
            jwks_url: jwks_url.into(),
            issuer: env.required("JWT_ISSUER")?.to_owned(),
            audience: env.required("JWT_AUDIENCE")?.to_owned(),
            tenant: env.parsed_or("JWT_TENANT", TenantName::Id(TenantId::DEFAULT))?,
        }))
    }
}

impl AuthConfig {
    /// Reads `JWT_SECRET`, `JWT_PREVIOUS_SECRETS` (separated by commas), the identity provider's settings and
    /// `LOCAL_ACCOUNTS`.
    pub fn from_env(env: &Env, debug: bool) -> Result<Self, ConfigError> {
        let secret = |name, text| parse_secret(name, text, debug);
        let previous_secrets = env
            .text("JWT_PREVIOUS_SECRETS")
            .unwrap_or_default()
            .split(',')
            .filter(|text| !text.trim().is_empty())
            .map(|text| secret("JWT_PREVIOUS_SECRETS", text.trim()))
            .collect::<Result<_, _>>()?;
        let secret = secret("JWT_SECRET", env.required("JWT_SECRET")?)?;
        let provider = ProviderConfig::from_env(env)?;
        // Nobody must get the orders of a provider's customer by registering here.
        let local_accounts = match env.text("LOCAL_ACCOUNTS") {
            Some(_) => env.flag("LOCAL_ACCOUNTS")?,
            None => provider.is_none(),
        };
        Ok(Self { secret, previous_secrets, provider, test_login: debug, local_accounts })
    }
}

/// Whether no third party can change what is read from a URL.
fn is_safe_source_of_keys(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_loopback =
        host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback());
    is_loopback || url.scheme() == "https"
}

fn parse_secret(name: &'static str, text: &str, debug: bool) -> Result<SecretString, ConfigError> {
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
