//! Where a request comes from, seen through the trusted proxies only.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Once,
};

use axum::http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the connection; the server puts it into each request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The client's address: with `trusted_proxies` proxies in front, the entry that the outermost of them wrote.
///
/// Each proxy appends the address it was called from, so entries count from the right, and whatever stands further
/// left may be made up, or be no text. Where the entry is missing or no address, the connection's other end counts.
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
        .and_then(|entry| address(std::str::from_utf8(entry).ok()?.trim()))
        .unwrap_or(peer)
        .to_canonical()
}

/// Once in the life of the process: behind a proxy that is not trusted all clients share one address and its limits.
fn warn_of_untrusted_proxy() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "X-Forwarded-For or Forwarded has arrived and is ignored, because TRUSTED_PROXIES is 0: if there is a proxy in \
             front, set TRUSTED_PROXIES, or all clients share one address and its limits"
        );
    });
}

/// An address, which some proxies write with a port.
fn address(entry: &str) -> Option<IpAddr> {
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
    fn without_trusted_proxies_the_header_means_nothing() {
        assert_eq!(seen(&["1.2.3.4"], 0), "10.0.0.1");
    }

    #[test]
    fn only_what_trusted_proxies_wrote_counts() {
        assert_eq!(seen(&["6.6.6.6, 1.2.3.4"], 1), "1.2.3.4");
        assert_eq!(seen(&["6.6.6.6, 1.2.3.4, 10.0.0.2"], 2), "1.2.3.4");
        assert_eq!(seen(&["6.6.6.6", "1.2.3.4", "10.0.0.2"], 2), "1.2.3.4");
    }

    #[test]
    fn what_clients_make_up_in_front_changes_nothing() {
        for made_up in ["ü", "\u{ff}\u{fe}", ",,,", "", "6.6.6.6 6.6.6.6", "\""] {
            assert_eq!(seen(&[&format!("{made_up}, 1.2.3.4")], 1), "1.2.3.4", "{made_up:?}");
            assert_eq!(seen(&[made_up, "1.2.3.4, 10.0.0.2"], 2), "1.2.3.4", "{made_up:?}");
        }
    }

    #[test]
    fn an_entry_that_is_missing_or_no_address_counts_as_the_connection() {
        assert_eq!(seen(&[], 1), "10.0.0.1");
        assert_eq!(seen(&["1.2.3.4"], 2), "10.0.0.1");
        assert_eq!(seen(&["unknown"], 1), "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        assert_eq!(seen(&["1.2.3.4:5678"], 1), "1.2.3.4");
        assert_eq!(seen(&["[2001:db8::1]:443"], 1), "2001:db8::1");
        assert_eq!(seen(&["[2001:db8::1]"], 1), "2001:db8::1");
        assert_eq!(seen(&["::ffff:1.2.3.4"], 1), "1.2.3.4");
    }
}
