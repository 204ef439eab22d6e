//! Settings from the environment: read once, checked before anything connects.

use std::{collections::HashMap, fmt::Display, str::FromStr};

use secrecy::SecretString;

/// One setting is missing or bad. One line that names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

impl ConfigError {
    /// `name` is set to something that cannot be used.
    pub fn new(name: &'static str, problem: impl Into<String>) -> Self {
        Self { name, problem: problem.into() }
    }
}

/// The variables a process was started with. An empty value counts as not set, as in a compose file.
#[derive(Clone, Default)]
pub struct Env(HashMap<String, String>);

impl Env {
    /// The process environment, completed from `.env` in the working directory or above where there is one.
    pub fn from_process() -> Result<Self, ConfigError> {
        match dotenvy::dotenv() {
            Ok(_) => {}
            Err(error) if error.not_found() => {}
            Err(error) => return Err(ConfigError::new(".env", error.to_string())),
        }
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(Self(variables.collect()))
    }

    /// The text of `name`, where it is set.
    pub fn text(&self, name: &'static str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The text of `name`, which must be set.
    pub fn required(&self, name: &'static str) -> Result<&str, ConfigError> {
        self.text(name).ok_or_else(|| ConfigError::new(name, "is required but not set"))
    }

    /// The value of `name`, where it is set.
    pub fn parsed<T>(&self, name: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        self.text(name)
            .map(|text| text.parse().map_err(|error| ConfigError::new(name, format!("{text:?}: {error}"))))
            .transpose()
    }

    /// The value of `name`, or `default` where it is not set.
    pub fn parsed_or<T>(&self, name: &'static str, default: T) -> Result<T, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        Ok(self.parsed(name)?.unwrap_or(default))
    }

    /// A number within bounds, or `default` where it is not set.
    pub fn number_or(
        &self,
        name: &'static str,
        default: u64,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let value = self.parsed_or(name, default)?;
        if bounds.contains(&value) {
            Ok(value)
        } else {
            Err(ConfigError::new(
                name,
                format!("{value} is not between {} and {}", bounds.start(), bounds.end()),
            ))
        }
    }

    /// A switch: `true`, `1`, `yes`, `on` or their opposites.
    pub fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0" | "no" | "off") => Ok(false),
            Some("true" | "1" | "yes" | "on") => Ok(true),
            Some(other) => Err(ConfigError::new(name, format!("{other:?} is neither true nor false"))),
        }
    }

    /// A URL that may hold a password, with one of `schemes`.
    pub fn url(&self, name: &'static str, schemes: &[&str]) -> Result<Option<SecretString>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| schemes.contains(&scheme)) {
            Ok(Some(SecretString::from(text.to_owned())))
        } else {
            // The value itself may hold a password and is not repeated.
            Err(ConfigError::new(
                name,
                format!("must be a URL that begins with {}://", schemes.join(":// or ")),
            ))
        }
    }

    /// Like [`Env::url`], for one that must be set.
    pub fn required_url(&self, name: &'static str, schemes: &[&str]) -> Result<SecretString, ConfigError> {
        self.required(name)?;
        self.url(name, schemes)?.ok_or_else(|| ConfigError::new(name, "is required but not set"))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// URL schemes of PostgreSQL.
pub const POSTGRES_SCHEMES: &[&str] = &["postgres", "postgresql"];
/// URL schemes of Redis, with and without TLS.
pub const REDIS_SCHEMES: &[&str] = &["redis", "rediss"];
