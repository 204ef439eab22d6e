//! Which servers a URL names, and which role they must have.

use std::str::FromStr as _;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

/// The servers of a URL: `postgres://user:password@host1:5432,host2:5432/database?target_session_attrs=read-write`.
///
/// They are tried in this order, beginning with the one that was used last.
#[derive(Clone, Debug)]
pub struct Servers {
    pub(super) hosts: Vec<PgConnectOptions>,
    pub(super) wanted: Wanted,
}

/// The role that a server must have, as in libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    Writable,
    ReadOnly,
    /// Read-only if there is one, else any.
    PreferReadOnly,
}

/// A URL that does not name PostgreSQL servers. The message does not repeat it, because it can contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

/// All values that libpq knows.
const ATTRIBUTES: &str = "any, read-write, read-only, primary, standby, prefer-standby";

impl Servers {
    /// Servers of which one is writable. The others, such as standbys, are skipped.
    pub fn primary(url: &SecretString) -> Result<Self, BadUrl> {
        let (hosts, attributes) = parse(url.expose_secret())?;
        match attributes.as_deref() {
            // "any" would not check, but the users of this pool write.
            None | Some("any" | "read-write" | "primary") => Ok(Self { hosts, wanted: Wanted::Writable }),
            Some(_) => Err(BadUrl(
                "target_session_attrs must be read-write here: the server must be writable".to_owned(),
            )),
        }
    }

    /// Servers that are only read from, and can lag.
    pub fn replica(url: &SecretString) -> Result<Self, BadUrl> {
        let (hosts, attributes) = parse(url.expose_secret())?;
        let wanted = match attributes.as_deref() {
            None | Some("any") => Wanted::Any,
            Some("read-write" | "primary") => Wanted::Writable,
            Some("read-only" | "standby") => Wanted::ReadOnly,
            Some("prefer-standby") => Wanted::PreferReadOnly,
            Some(_) => return Err(BadUrl(format!("target_session_attrs must be one of {ATTRIBUTES}"))),
        };
        Ok(Self { hosts, wanted })
    }

    /// A URL for each host, of the kind that sqlx understands.
    pub(crate) fn single_host_urls(url: &str) -> Result<Vec<String>, BadUrl> {
        Ok(split(url)?.0)
    }

    /// The server of a test's pool.
    pub(super) fn of(options: &PgConnectOptions) -> Self {
        Self { hosts: vec![prepared(options.clone())], wanted: Wanted::Writable }
    }
}

/// The options of each host, and `target_session_attrs`.
fn parse(url: &str) -> Result<(Vec<PgConnectOptions>, Option<String>), BadUrl> {
    let (urls, attributes) = split(url)?;
    Ok((urls.iter().map(|url| parse_one(url)).collect::<Result<_, _>>()?, attributes))
}

/// A URL for each host, without `target_session_attrs`, which sqlx does not know, and the value of that parameter.
fn split(url: &str) -> Result<(Vec<String>, Option<String>), BadUrl> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| BadUrl("must be a URL that begins with postgres:// or postgresql://".to_owned()))?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let (tail, attributes) = without_attributes(tail);
    if hosts.contains(',') && hosts.split(',').any(str::is_empty) {
        return Err(BadUrl("names an empty host".to_owned()));
    }
    Ok((hosts.split(',').map(|host| format!("{scheme}://{user}{host}{tail}")).collect(), attributes))
}

fn parse_one(url: &str) -> Result<PgConnectOptions, BadUrl> {
    let mut options = PgConnectOptions::from_str(url).map_err(|error| {
        BadUrl(match error {
            sqlx::Error::Configuration(error) => format!("is not a PostgreSQL URL: {error}"),
            error => format!("is not a PostgreSQL URL: {error}"),
        })
    })?;
    if options.get_host().contains(',') {
        return Err(BadUrl("several hosts stand before the path, as host1:5432,host2:5432".to_owned()));
    }
    if options.get_port() == 0 {
        return Err(BadUrl("port 0 is not a port".to_owned()));
    }
    // In a URL an IPv6 address has brackets, which the resolver does not know.
    if let Some(address) = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address = address.to_owned();
        options = options.host(&address);
    }
    Ok(prepared(options))
}

/// PgBouncer refuses the start-up parameter `extra_float_digits`, which means nothing for binary values.
fn prepared(options: PgConnectOptions) -> PgConnectOptions {
    options.extra_float_digits(None).disable_statement_logging()
}

/// Path and query without `target_session_attrs`, and its value.
fn without_attributes(tail: &str) -> (String, Option<String>) {
    let Some((path, query)) = tail.split_once('?') else { return (tail.to_owned(), None) };
    let mut attributes = None;
    let others: Vec<&str> = query
        .split('&')
        .filter(|pair| match pair.strip_prefix("target_session_attrs=") {
            Some(value) => {
                attributes = Some(value.to_owned());
                false
            }
            None => true,
        })
        .collect();
    (format!("{path}?{}", others.join("&")), attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(url: &str) -> Result<Servers, BadUrl> {
        Servers::primary(&SecretString::from(url.to_owned()))
    }

    fn addresses(url: &str) -> Vec<(String, u16)> {
        let servers = primary(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        servers.hosts.iter().map(|host| (host.get_host().to_owned(), host.get_port())).collect()
    }

    #[test]
    fn every_host_of_a_url_is_named_with_its_port() {
        let cases: [(&str, &[(&str, u16)]); 6] = [
            ("postgres://u:p@db:5433/orders", &[("db", 5433)]),
            ("postgres://u@[::1]:5432/db", &[("::1", 5432)]),
            ("postgres://u:p@a,b:5433,[fe80::1]:5434/orders", &[("a", 5432), ("b", 5433), ("fe80::1", 5434)]),
            (
                "postgres://u:p%2C@a,b/orders?sslmode=disable&target_session_attrs=read-write",
                &[("a", 5432), ("b", 5432)],
            ),
            ("postgres://u:p,q@a@b:1/orders", &[("b", 1)]),
            ("postgres:///orders?host=db.example&port=6000", &[("db.example", 6000)]),
        ];
        for (url, expected) in cases {
            let expected: Vec<(String, u16)> =
                expected.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
            assert_eq!(addresses(url), expected, "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_with_a_reason_and_without_its_password() {
        for url in [
            "postgres://u:secret@a,,b/orders",
            "postgres://u:secret@a:0/orders",
            "postgres://u:secret@a:99999/orders",
            "postgres://u:secret@a:port/orders",
            "postgres://u:secret@a/orders?sslmode=sometimes",
            "postgres://u:secret@a/orders?host=a,b",
            "postgres://u:secret@a,b/orders?target_session_attrs=standby",
            "postgres://u:secret@a,b/orders?target_session_attrs=writable",
        ] {
            let error = primary(url).expect_err(url);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_replica_can_be_selected_by_every_attribute_of_libpq() {
        let wanted = |attributes: &str| {
            let url = format!("postgres://u@a,b/orders?target_session_attrs={attributes}");
            Servers::replica(&SecretString::from(url)).map(|servers| servers.wanted)
        };
        assert_eq!(wanted("any"), Ok(Wanted::Any));
        assert_eq!(wanted("standby"), Ok(Wanted::ReadOnly));
        assert_eq!(wanted("read-only"), Ok(Wanted::ReadOnly));
        assert_eq!(wanted("primary"), Ok(Wanted::Writable));
        assert_eq!(wanted("prefer-standby"), Ok(Wanted::PreferReadOnly));
        assert!(wanted("primarily").is_err());
    }
}
