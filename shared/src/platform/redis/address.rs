//! What a Redis URL leads to: one server, the primary that sentinels name, or the nodes of a cluster.
//!
//! `redis+sentinel://user:password@host1:26379,host2,host3/NAME/DATABASE?sentinel_password=…` and
//! `redis+cluster://user:password@host1:6379,host2`; by TLS with `rediss+…`, and then to sentinels and servers alike.

use redis::{ConnectionInfo, IntoConnectionInfo as _};

/// The port of a sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26379;
/// The parameters with a user and a password of the sentinels' own.
const SENTINEL_USER: &str = "sentinel_user";
const SENTINEL_PASSWORD: &str = "sentinel_password";

/// Where the primary is found.
#[derive(Clone, Debug)]
pub(super) enum RedisAddress {
    /// At this address.
    Server(ConnectionInfo),
    /// At the address that the sentinels name, with the credentials and database of `server`.
    Sentinels { sentinels: Vec<ConnectionInfo>, primary: String, server: ConnectionInfo },
    /// On the nodes of the cluster that one of these knows.
    Cluster { seeds: Vec<ConnectionInfo> },
}

/// The kinds of URLs, by what follows `redis` or `rediss` in the scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedisUrlKind {
    Server,
    Sentinels,
    Cluster,
}

/// A URL as text, taken apart so that each part can be checked and parsed as a URL of one server.
#[derive(Debug)]
pub(crate) struct RedisUrlParts {
    pub(crate) kind: RedisUrlKind,
    /// A `redis://` or `rediss://` URL for each host, with the credentials and database of the servers.
    pub(crate) urls: Vec<String>,
    primary: String,
    sentinel_credentials: (Option<String>, Option<String>),
}

impl RedisAddress {
    /// Parses a URL. The message of an error repeats no part of it, because it can hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let RedisUrlParts { kind, urls, primary, sentinel_credentials } = RedisUrlParts::split(url)?;
        let infos = urls.iter().map(|url| url.as_str().into_connection_info());
        let mut infos =
            infos.collect::<Result<Vec<_>, _>>().map_err(|_| "is no URL of a Redis".to_owned())?;
        Ok(match kind {
            RedisUrlKind::Server => Self::Server(infos.swap_remove(0)),
            RedisUrlKind::Cluster => Self::Cluster { seeds: infos },
            RedisUrlKind::Sentinels => {
                let server = infos[0].clone();
                let (user, password) = sentinel_credentials;
                let mut settings = redis::RedisConnectionInfo::default();
                if let Some(user) = user {
                    settings = settings.set_username(user);
                }
                if let Some(password) = password {
                    settings = settings.set_password(password);
                }
                let sentinels = infos.into_iter().map(|info| info.set_redis_settings(settings.clone()));
                Self::Sentinels { sentinels: sentinels.collect(), primary, server }
            }
        })
    }
}

impl RedisUrlParts {
    /// Takes a URL apart. Hosts, ports, credentials and the database are left as they are, to be checked as those of a URL of
    /// one server.
    pub(crate) fn split(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (scheme, kind) = match scheme.split_once('+') {
            None => (scheme, RedisUrlKind::Server),
            Some((scheme, "sentinel")) => (scheme, RedisUrlKind::Sentinels),
            Some((scheme, "cluster")) => (scheme, RedisUrlKind::Cluster),
            Some(_) => return Err("must be redis+sentinel:// or redis+cluster:// if it has a +".to_owned()),
        };
        if kind == RedisUrlKind::Server {
            let (urls, sentinel_credentials) = (vec![text.to_owned()], (None, None));
            return Ok(Self { kind, urls, primary: String::new(), sentinel_credentials });
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let (path, query) = tail.split_at(tail.find(['?', '#']).unwrap_or(tail.len()));
        let (query, fragment) = query.split_at(query.find('#').unwrap_or(query.len()));
        let (query, sentinel_credentials) = split_query(query.strip_prefix('?').unwrap_or(query))?;
        let (primary, database) = match kind {
            RedisUrlKind::Sentinels => split_path(path)?,
            _ if !matches!(path, "" | "/" | "/0") => {
                return Err("names a database, but a cluster has only the database 0".to_owned());
            }
            _ if sentinel_credentials != (None, None) => {
                return Err(format!(
                    "the parameters {SENTINEL_USER} and {SENTINEL_PASSWORD} are for redis+sentinel://"
                ));
            }
            _ => (String::new(), "0"),
        };
        let default_port = (kind == RedisUrlKind::Sentinels).then_some(SENTINEL_PORT);
        let hosts = split_hosts(hosts, default_port)?;
        let url = |host| format!("{scheme}://{user}{host}/{database}{query}{fragment}");
        Ok(Self { kind, urls: hosts.iter().map(url).collect(), primary, sentinel_credentials })
    }
}

/// The hosts, each with a port if there is a default one.
fn split_hosts(hosts: &str, default_port: Option<u16>) -> Result<Vec<String>, String> {
    let mut named: Vec<String> = Vec::new();
    for host in hosts.split(',') {
        if host.is_empty() || host.starts_with(':') {
            return Err("names an empty host".to_owned());
        }
        // The colons of an IPv6 address stand in brackets.
        let has_port = host.rfind(':') > host.rfind(']');
        let host = match default_port {
            Some(port) if !has_port => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        if named.contains(&host) {
            return Err("names a host twice".to_owned());
        }
        named.push(host);
    }
    Ok(named)
}

/// The name of the primary among the sentinels, and the database.
fn split_path(path: &str) -> Result<(String, &str), String> {
    let mut parts = path.strip_prefix('/').unwrap_or(path).splitn(2, '/');
    let (name, database) = (parts.next().unwrap_or_default(), parts.next());
    // What Sentinel itself takes as a name.
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(
            "must name the primary as the sentinels do, as in redis+sentinel://host:26379/orders".to_owned()
        );
    }
    match database {
        Some("") => Err("has a / after the name of the primary, but no number of a database".to_owned()),
        database => Ok((name.to_owned(), database.unwrap_or("0"))),
    }
}

type Credentials = (Option<String>, Option<String>);

/// The query without the sentinels' user and password, and these.
fn split_query(query: &str) -> Result<(String, Credentials), String> {
    let (mut others, mut user, mut password) = (Vec::new(), None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let value = url::form_urlencoded::parse(pair.as_bytes()).next();
        let wanted = match value.as_ref().map(|(name, _)| &**name) {
            Some(SENTINEL_USER) => &mut user,
            Some(SENTINEL_PASSWORD) => &mut password,
            _ => {
                others.push(pair);
                continue;
            }
        };
        let value = value.map(|(_, value)| value.into_owned()).unwrap_or_default();
        if value.is_empty() || value.contains(char::REPLACEMENT_CHARACTER) || wanted.is_some() {
            return Err(format!(
                "{SENTINEL_USER} and {SENTINEL_PASSWORD} must be UTF-8, not empty, and given once"
            ));
        }
        *wanted = Some(value);
    }
    if user.is_some() && password.is_none() {
        return Err(format!("has a {SENTINEL_USER}, but no {SENTINEL_PASSWORD}"));
    }
    let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    Ok((query, (user, password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(infos: &[ConnectionInfo]) -> Vec<String> {
        infos.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn sentinels_have_their_own_port_and_password_and_the_primary_has_those_of_the_url() {
        let url = "redis+sentinel://app:p%40ss@a:26000,b,[::1]/orders.eu-1/3?sentinel_password=s%26t&protocol=resp3";
        let Ok(RedisAddress::Sentinels { sentinels, primary, server }) = RedisAddress::parse(url) else {
            panic!("it is a URL of sentinels")
        };
        assert_eq!(addresses(&sentinels), ["a:26000", "b:26379", "::1:26379"]);
        assert_eq!(primary, "orders.eu-1");
        let (own, theirs) = (server.redis_settings(), sentinels[1].redis_settings());
        assert_eq!((own.username(), own.password(), own.db()), (Some("app"), Some("p@ss"), 3));
        assert_eq!(own.protocol(), redis::ProtocolVersion::RESP3);
        assert_eq!((theirs.username(), theirs.password(), theirs.db()), (None, Some("s&t"), 0));
    }

    #[test]
    fn a_cluster_has_several_seeds_with_the_same_credentials_and_tls() {
        let url = "rediss+cluster://app:pass@a:7000,b";
        let Ok(RedisAddress::Cluster { seeds }) = RedisAddress::parse(url) else {
            panic!("it is a URL of a cluster")
        };
        assert_eq!(addresses(&seeds), ["a:7000", "b:6379"]);
        assert!(seeds.iter().all(|seed| seed.redis_settings().password() == Some("pass")));
        assert!(matches!(seeds[1].addr(), redis::ConnectionAddr::TcpTls { .. }));
    }
}
