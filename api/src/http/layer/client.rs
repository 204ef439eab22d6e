//! The client's address, as trusted proxies report it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Once,
};

use axum::http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address: with `trusted_proxies` proxies in front, the entry that the outermost of them wrote.
///
/// Each proxy appends the address it was called from, so entries count from the right; clients can make up everything further
/// left. If the entry is missing or is not an address, the connection's other end is the client.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted_proxies: usize) -> IpAddr {
    if trusted_proxies == 0 {
        if headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED) {
            warn_of_untrusted_proxy();
        }
        return peer.to_canonical();
    }
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .nth(trusted_proxies - 1)
        .and_then(|entry| parse_address(std::str::from_utf8(entry).ok()?.trim()))
        .unwrap_or(peer)
        .to_canonical()
}

/// Warns once in the life of the process: behind an untrusted proxy all clients share one address and its limits.
fn warn_of_untrusted_proxy() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "X-Forwarded-For or Forwarded has arrived and is ignored, because TRUSTED_PROXIES is 0: if there is a proxy in \
             front, set TRUSTED_PROXIES, or all clients share one address and its limits"
        );
    });
}

/// Parses an address; some proxies write a port with it.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn seen(lines: &[&str], trusted_proxies: usize) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        client_address(IpAddr::from([10, 0, 0, 1]), &headers, trusted_proxies).to_string()
    }

    #[test]
    fn without_trusted_proxies_the_header_is_ignored() {
        assert_eq!(seen(&["1.2.3.4"], 0), "10.0.0.1");
    }

    #[test]
    fn only_entries_of_trusted_proxies_are_used() {
        assert_eq!(seen(&["6.6.6.6, 1.2.3.4"], 1), "1.2.3.4");
        assert_eq!(seen(&["6.6.6.6, 1.2.3.4, 10.0.0.2"], 2), "1.2.3.4");
        assert_eq!(seen(&["6.6.6.6", "1.2.3.4", "10.0.0.2"], 2), "1.2.3.4");
    }

    #[test]
    fn entries_that_clients_make_up_are_ignored() {
        for made_up in ["ü", "\u{ff}\u{fe}", ",,,", "", "6.6.6.6 6.6.6.6", "\""] {
            assert_eq!(seen(&[&format!("{made_up}, 1.2.3.4")], 1), "1.2.3.4", "{made_up:?}");
            assert_eq!(seen(&[made_up, "1.2.3.4, 10.0.0.2"], 2), "1.2.3.4", "{made_up:?}");
        }
    }

    #[test]
    fn without_a_valid_entry_the_connection_is_the_client() {
        assert_eq!(seen(&[], 1), "10.0.0.1");
        assert_eq!(seen(&["1.2.3.4"], 2), "10.0.0.1");
        assert_eq!(seen(&["unknown"], 1), "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_parsed() {
        assert_eq!(seen(&["1.2.3.4:5678"], 1), "1.2.3.4");
        assert_eq!(seen(&["[2001:db8::1]:443"], 1), "2001:db8::1");
        assert_eq!(seen(&["[2001:db8::1]"], 1), "2001:db8::1");
        assert_eq!(seen(&["::ffff:1.2.3.4"], 1), "1.2.3.4");
    }
}
