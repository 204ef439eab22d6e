//! Settings from the environment: read once, checked before anything connects.

mod dotenv;
mod urls;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Display,
    net::SocketAddr,
    str::FromStr,
};

use secrecy::SecretString;
use url::Url;

pub(crate) use urls::parse_amqp;
pub use urls::{UrlKind, is_origin};

/// A setting is missing or invalid. The message is one line that names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

impl ConfigError {
    /// `name` has a value that cannot be used.
    pub fn new(name: &'static str, problem: impl Into<String>) -> Self {
        Self { name, problem: problem.into() }
    }
}

/// The environment variables of a process. An empty value counts as not set, as in a compose file.
#[derive(Clone, Default)]
pub struct Env(HashMap<String, String>);

impl Env {
    /// The process environment, completed from the `.env` in the working directory or above, if there is one. A
    /// variable that is empty counts as not set there too, so that the file's value is taken.
    pub fn from_process() -> Result<Self, ConfigError> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut env = Self(variables.collect());
        let added = env.complete(dotenv::load().map_err(|problem| ConfigError::new(".env", problem))?);
        let exported = added.iter().filter_map(|name| Some((name.as_str(), env.0.get(name)?.as_str())));
        dotenv::export(exported).map_err(|_| ConfigError::new(".env", "has a value that cannot be set"))?;
        Ok(env)
    }

    /// Takes the settings that are not set here. Returns their names.
    fn complete(&mut self, settings: Vec<(String, String)>) -> BTreeSet<String> {
        let is_set = |value: &String| !value.trim().is_empty();
        let own: HashSet<String> =
            self.0.iter().filter(|(_, value)| is_set(value)).map(|(name, _)| name.clone()).collect();
        let mut added = BTreeSet::new();
        for (name, value) in settings.into_iter().filter(|(_, value)| is_set(value)) {
            if !own.contains(&name) {
                added.insert(name.clone());
                self.0.insert(name, value);
            }
        }
        added
    }

    /// The text of `name`, if it is set.
    pub fn text(&self, name: &'static str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The text of `name`, which must be set.
    pub fn required(&self, name: &'static str) -> Result<&str, ConfigError> {
        self.text(name).ok_or_else(|| ConfigError::new(name, "is required but not set"))
    }

    /// The value of `name`, if it is set.
    pub fn parsed<T>(&self, name: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        self.text(name)
            .map(|text| text.parse().map_err(|error| ConfigError::new(name, format!("{text:?}: {error}"))))
            .transpose()
    }

    /// The value of `name`, or `default` if it is not set.
    pub fn parsed_or<T>(&self, name: &'static str, default: T) -> Result<T, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        Ok(self.parsed(name)?.unwrap_or(default))
    }

    /// The value of `name`, or `default` if it is not set. The error says what was expected, because that of a type of the
    /// standard library does not.
    pub fn expected_or<T: FromStr>(
        &self,
        name: &'static str,
        expected: &str,
        default: T,
    ) -> Result<T, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| ConfigError::new(name, format!("{text:?} is not {expected}")))
    }

    /// `METRICS_ADDR`: where metrics and probes for operators are served; this port of the loopback if it is not set.
    pub fn metrics_addr(&self, port: u16) -> Result<SocketAddr, ConfigError> {
        let expected = "an address with a port, such as 127.0.0.1:9090";
        self.expected_or("METRICS_ADDR", expected, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// A number within bounds, or `default` if it is not set.
    pub fn number_or(
        &self,
        name: &'static str,
        default: u64,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let value = self.expected_or(name, "a whole number", default)?;
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

    /// A URL, which can contain a password.
    pub fn url(&self, name: &'static str, kind: UrlKind) -> Result<Option<SecretString>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // The value can contain a password and is not repeated.
        kind.check(text).map_err(|problem| ConfigError::new(name, problem))?;
        Ok(Some(SecretString::from(text.to_owned())))
    }

    /// Like [`Env::url`], for one that must be set.
    pub fn required_url(&self, name: &'static str, kind: UrlKind) -> Result<SecretString, ConfigError> {
        self.required(name)?;
        self.url(name, kind)?.ok_or_else(|| ConfigError::new(name, "is required but not set"))
    }

    /// The address of a web service.
    pub fn http_url(&self, name: &'static str) -> Result<Option<Url>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let checked = UrlKind::Http.check(text).and_then(|()| UrlKind::Http.parse(text));
        checked.map(Some).map_err(|problem| ConfigError::new(name, problem))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_does_not_hide_the_value_of_the_file() {
        let mut env = Env::from_iter([("EMPTY", " "), ("SET", "own")]);
        let file = [("EMPTY", "file"), ("SET", "file"), ("NEW", "first"), ("NEW", "last"), ("BLANK", "")];
        let file = file.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let added = env.complete(file.to_vec());
        assert_eq!(added.into_iter().collect::<Vec<_>>(), ["EMPTY", "NEW"]);
        for (name, value) in
            [("EMPTY", Some("file")), ("SET", Some("own")), ("NEW", Some("last")), ("BLANK", None)]
        {
            assert_eq!(env.text(name), value, "{name}");
        }
    }
}
