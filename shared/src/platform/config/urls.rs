//! The URLs among the settings. Each is parsed at the start of the program, by the library that connects by it later, so
//! that a mistake in one is found there, and not at the first use.
//!
//! A URL may hold a password. No message repeats any part of one but the names of parameters.

use std::net::Ipv4Addr;

use lapin::uri::AMQPUri;
use redis::IntoConnectionInfo as _;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use url::{Host, ParseError, Url};

use crate::platform::{
    db::{BadUrl, Servers},
    redis::RedisUrlParts,
};

/// What a URL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlKind {
    /// A PostgreSQL database, on a server that can be written to.
    Postgres,
    /// A PostgreSQL database that is only read from.
    PostgresReplica,
    /// A Redis, with or without TLS: a server, one behind sentinels, or a cluster.
    Redis,
    /// A RabbitMQ, with or without TLS.
    Amqp,
    /// A web service.
    Http,
}

/// A problem, as a phrase that follows the setting's name.
type Checked = Result<(), String>;

/// The parameters that sqlx understands. It ignores all others, a misspelt `sslmode` too.
const POSTGRES_PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// The parameters that name a file.
const POSTGRES_FILES: &[&str] =
    &["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];
const REDIS_PARAMETERS: &[&str] = &["protocol"];
const AMQP_PARAMETERS: &[&str] =
    &["frame_max", "channel_max", "heartbeat", "connection_timeout", "auth_mechanism"];

impl UrlKind {
    const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Postgres | Self::PostgresReplica => &["postgres", "postgresql"],
            Self::Redis => {
                &["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"]
            }
            Self::Amqp => &["amqp", "amqps"],
            Self::Http => &["http", "https"],
        }
    }

    /// Whether a program can use this URL.
    pub(super) fn check(self, text: &str) -> Checked {
        if self.is_postgres() {
            // It may name several hosts, which is more than a URL can.
            for text in Servers::single_host_urls(text).map_err(|error| error.to_string())? {
                check_postgres(&self.parse(&text)?, &text)?;
            }
            return self.check_servers(&SecretString::from(text)).map_err(|error| error.to_string());
        }
        if self == Self::Redis {
            self.check_text(text)?;
            for url in RedisUrlParts::split(text)?.urls {
                check_redis(&self.parse(&url)?, &url)?;
            }
            return Ok(());
        }
        let url = self.parse(text)?;
        match self {
            Self::Postgres | Self::PostgresReplica | Self::Redis => Ok(()),
            Self::Amqp => check_amqp(&url, text),
            Self::Http => check_no_fragment(&url),
        }
    }

    const fn is_postgres(self) -> bool {
        matches!(self, Self::Postgres | Self::PostgresReplica)
    }

    fn check_servers(self, text: &SecretString) -> Result<(), BadUrl> {
        if self == Self::Postgres { Servers::primary(text) } else { Servers::replica(text) }.map(drop)
    }

    /// What follows the scheme, which is one of those that can be used.
    fn check_text(self, text: &str) -> Result<&str, String> {
        let schemes = self.schemes();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        if !schemes.contains(&scheme) {
            return Err(format!("must be a URL that begins with {}://", schemes.join(":// or ")));
        }
        // The parser drops some of these silently.
        if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return Err("has white space or a control character in it; write it percent-encoded".to_owned());
        }
        // PostgreSQL's protocol ends a text with it.
        if text.contains("%00") {
            return Err("has a NUL byte in it".to_owned());
        }
        Ok(rest)
    }

    /// The URL in `text`: its scheme, its host and its port are right.
    pub(super) fn parse(self, text: &str) -> Result<Url, String> {
        let rest = self.check_text(text)?;
        let url = Url::parse(text).map_err(describe)?;
        // The web's parser skips slashes until it finds something that could be a host.
        let names_a_host = !rest.starts_with('/') && url.host_str().is_some_and(|host| !host.is_empty());
        // A PostgreSQL without a host is the one at this machine's socket.
        if names_a_host {
            check_host(&url, self.is_postgres())?;
        } else if !self.is_postgres() {
            return Err("names no host".to_owned());
        }
        if url.port() == Some(0) { Err(BAD_PORT.to_owned()) } else { Ok(url) }
    }
}

const BAD_PORT: &str = "the port must be a number from 1 to 65535; a user name or password with one of / : @ ? # in it \
                        must be percent-encoded";

/// Whether this is how browsers write the origin of a page: scheme and host, and the port if it is not the scheme's own.
pub fn is_origin(text: &str) -> bool {
    UrlKind::Http.check(text).is_ok()
        && Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
}

/// The error of the parser, which repeats nothing of the URL.
fn describe(error: ParseError) -> String {
    match error {
        ParseError::InvalidPort => BAD_PORT.to_owned(),
        ParseError::EmptyHost => "names no host".to_owned(),
        other => format!("is no URL: {other}"),
    }
}

fn check_host(url: &Url, may_be_a_socket: bool) -> Checked {
    match url.host() {
        Some(Host::Domain(name)) if may_be_a_socket && name.to_ascii_lowercase().starts_with("%2f") => Ok(()),
        Some(Host::Domain(name)) => check_host_name(name),
        _ => Ok(()),
    }
}

/// An IPv4 address, or a name that DNS or a container network could know.
fn check_host_name(name: &str) -> Checked {
    let labels = || name.strip_suffix('.').unwrap_or(name).split('.');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if name.len() > 253 || !labels().all(is_label) {
        Err("the host is no name or address".to_owned())
    } else if labels().next_back().is_some_and(is_number) && name.parse::<Ipv4Addr>().is_err() {
        Err("the host is no IPv4 address".to_owned())
    } else {
        Ok(())
    }
}

fn check_no_fragment(url: &Url) -> Checked {
    match url.fragment() {
        Some(_) => Err("has a # in it, which must be written %23".to_owned()),
        None => Ok(()),
    }
}

/// Each parameter must be known, and one that `parse` can use.
fn check_parameters(url: &Url, known: &[&str], parses: impl Fn(&str) -> bool) -> Checked {
    for (name, value) in url.query_pairs() {
        if !known.contains(&&*name) {
            let name = name.escape_debug();
            return Err(format!("the parameter {name:.40} is not supported; there are {}", known.join(", ")));
        }
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair(&name, &value).finish();
        if !parses(&query) {
            return Err(format!("the parameter {name} has a value that cannot be used"));
        }
    }
    Ok(())
}

fn check_postgres(url: &Url, text: &str) -> Checked {
    check_no_fragment(url)?;
    check_parameters(url, POSTGRES_PARAMETERS, |query| {
        format!("postgres://localhost/?{query}").parse::<PgConnectOptions>().is_ok()
    })?;
    for (name, file) in url.query_pairs() {
        let given = POSTGRES_FILES.contains(&&*name) && !file.contains("-----BEGIN");
        if given && let Err(error) = std::fs::File::open(&*file) {
            return Err(format!("the file that {name} names cannot be read: {}", error.kind()));
        }
    }
    if url.path().trim_start_matches('/').contains('/') {
        return Err("has more after the name of the database; a / in the name must be written %2F".to_owned());
    }
    let options: PgConnectOptions =
        text.parse().map_err(|_| "the user, password or database is not UTF-8".to_owned())?;
    if options.get_port() == 0 {
        return Err(BAD_PORT.to_owned());
    }
    if options.get_socket().is_none() && !options.get_host().starts_with(['/', '[']) {
        let host = options.get_host();
        return if host.contains(':') { Ok(()) } else { check_host_name(host) };
    }
    Ok(())
}

fn check_redis(url: &Url, text: &str) -> Checked {
    check_parameters(url, REDIS_PARAMETERS, |query| {
        format!("redis://localhost/?{query}").into_connection_info().is_ok()
    })?;
    if url.scheme() == "redis" {
        check_no_fragment(url)?;
    }
    let database = url.path().trim_matches('/');
    // Negative numbers pass the library and fail in Redis.
    if !database.is_empty() && database.parse::<u16>().is_err() {
        return Err("the number of the database, after the host, must be 0 or more, as in /0".to_owned());
    }
    // The library's errors may repeat a value; its first part never does.
    text.into_connection_info().map(drop).map_err(|error| {
        let known = ["wildcard", "#insecure", "UTF-8"];
        let text = error.to_string();
        match known.into_iter().find(|part| text.contains(part)) {
            Some("wildcard") => "the host 0.0.0.0 or :: is no address to connect to".to_owned(),
            Some("#insecure") => "has a # in it, which must be written %23".to_owned(),
            Some(_) => "the user or password is not UTF-8".to_owned(),
            None => "is no URL of a Redis".to_owned(),
        }
    })
}

fn check_amqp(url: &Url, text: &str) -> Checked {
    check_no_fragment(url)?;
    check_parameters(url, AMQP_PARAMETERS, |query| {
        format!("amqp://localhost/v?{query}").parse::<AMQPUri>().is_ok()
    })?;
    match url.path() {
        "/" => return Err("names an empty virtual host; RabbitMQ's default one is /%2f".to_owned()),
        // Common, and understood as the virtual host /.
        "" | "//" => {}
        path if path[1..].contains('/') => {
            return Err("a / in the name of the virtual host must be written %2f".to_owned());
        }
        _ => {}
    }
    parse_amqp(text).map(drop)
}

/// The address of a RabbitMQ. Unlike the library, it does not take an IPv6 address for `localhost`.
pub(crate) fn parse_amqp(text: &str) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri =
        text.parse().map_err(|_| "the user, password or virtual host cannot be used".to_owned())?;
    if let Ok(url) = Url::parse(text)
        && let Some(Host::Ipv6(address)) = url.host()
    {
        uri.authority.host = address.to_string();
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_can_be_used_are_taken() {
        for (kind, urls) in [
            (
                UrlKind::Postgres,
                &[
                    "postgres://user:p%40ss@127.0.0.1:5432/orderdb",
                    "postgresql://db.example.com/orders?sslmode=verify-full&application_name=a",
                    "postgres://user@localhost",
                    "postgres://u@[::1]:5432/db",
                    "postgres://my_host-1.internal./db",
                    "postgres:///orderdb",
                    "postgres:///orderdb?host=/var/run/postgresql",
                    "postgres://%2Fvar%2Frun%2Fpostgresql/orderdb",
                    "postgres://u@h/db?options=-c%20search_path%3Dx&statement-cache-capacity=0",
                    "postgres://u:p@a:5432,b,[::1]:5433/db?target_session_attrs=read-write",
                ][..],
            ),
            (UrlKind::PostgresReplica, &["postgres://u:p@a,b/db?target_session_attrs=prefer-standby"]),
            (
                UrlKind::Redis,
                &[
                    "redis://127.0.0.1:6379/0",
                    "redis://127.0.0.1",
                    "redis://:pass@redis:6379/15?protocol=resp3",
                    "rediss://user:pass@[2001:db8::1]/0",
                    "rediss://host/0#insecure",
                    "redis+sentinel://h1:26379,h2,h3/orders",
                    "redis+sentinel://user:p%40ss@[::1],h2:1/my.orders-1_a/15?sentinel_user=u&sentinel_password=p%26q",
                    "rediss+sentinel://:pass@h1,h2,h3/orders/0?protocol=resp3#insecure",
                    "redis+cluster://h1:6379,h2",
                    "rediss+cluster://user:pass@h1,[2001:db8::1]:7000/0?protocol=resp3",
                ],
            ),
            (
                UrlKind::Amqp,
                &[
                    "amqp://user:password@rabbitmq:5672/%2f",
                    "amqp://localhost",
                    "amqp://localhost//",
                    "amqps://u:p@h.example/vhost?heartbeat=10",
                    "amqp://u:p@[::1]:5672/v",
                ],
            ),
            (
                UrlKind::Http,
                &[
                    "http://127.0.0.1:4318",
                    "https://id.example.com/.well-known/jwks.json?x=1",
                    "http://[::1]:1",
                ],
            ),
        ] {
            for url in urls {
                assert_eq!(kind.check(url), Ok(()), "{url}");
            }
        }
    }

    #[test]
    fn urls_that_cannot_be_used_are_refused_in_one_line_that_shows_nothing_of_them() {
        use testbed::bad_urls::{self, SECRET};

        for (kind, urls) in [
            (UrlKind::Postgres, bad_urls::POSTGRES),
            (UrlKind::Redis, bad_urls::REDIS),
            (UrlKind::Amqp, bad_urls::AMQP),
            (UrlKind::Http, bad_urls::HTTP),
        ] {
            for url in urls {
                let problem = kind.check(url).expect_err(url);
                assert!(!problem.contains(SECRET) && problem.lines().count() == 1, "{url}: {problem}");
            }
        }
    }

    #[test]
    fn an_origin_is_written_as_browsers_do() {
        for origin in ["https://shop.example", "http://localhost:3000", "https://[::1]:8443"] {
            assert!(is_origin(origin), "{origin}");
        }
        for other in [
            "shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://shop.example:443",
            "https://shop.example:99999",
            "https://user@shop.example",
            "https://*.example",
        ] {
            assert!(!is_origin(other), "{other}");
        }
    }

    #[test]
    fn an_ipv6_address_of_a_rabbitmq_is_not_taken_for_localhost() {
        let uri = parse_amqp("amqp://u:p@[2001:db8::1]:5673/v").expect("an address");
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("2001:db8::1", 5673));
    }
}
