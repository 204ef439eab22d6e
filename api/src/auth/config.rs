//! The settings of authentication.

use secrecy::SecretString;
use shared::config::{ConfigError, Env};

/// HS256 asks for a key of at least the hash's size (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Who may call, and how that is checked.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Signs and verifies.
    pub secret: SecretString,
    /// Verify, but never sign: for rotating the secret without logging anyone out.
    pub previous_secrets: Vec<SecretString>,
    /// Whether `login-test` exists.
    pub test_login: bool,
}

impl AuthConfig {
    /// Reads `JWT_SECRET` and `JWT_PREVIOUS_SECRETS` (separated by commas).
    pub fn from_env(env: &Env, debug: bool) -> Result<Self, ConfigError> {
        let secret = secret("JWT_SECRET", env.required("JWT_SECRET")?)?;
        let previous_secrets = env
            .text("JWT_PREVIOUS_SECRETS")
            .unwrap_or_default()
            .split(',')
            .filter(|text| !text.trim().is_empty())
            .map(|text| self::secret("JWT_PREVIOUS_SECRETS", text.trim()))
            .collect::<Result<_, _>>()?;
        Ok(Self { secret, previous_secrets, test_login: debug })
    }
}

fn secret(name: &'static str, text: &str) -> Result<SecretString, ConfigError> {
    if text.len() < MIN_SECRET_BYTES {
        return Err(ConfigError::new(
            name,
            format!("needs at least {MIN_SECRET_BYTES} bytes, for example from `openssl rand -base64 48`"),
        ));
    }
    Ok(SecretString::from(text.to_owned()))
}
