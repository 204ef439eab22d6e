//! Free loopback ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::Rng;

/// Below the ranges from which Linux and macOS take the local ports of outgoing connections, so that a port found
/// free here is not taken by a passing connection before the server that it is meant for listens on it.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A loopback port on which nothing listens.
///
/// Picked at random, because many test processes look for one at the same time.
///
/// # Panics
///
/// When a thousand ports in a row are taken.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    for _ in 0..1000 {
        let port = random.random_range(RANGE);
        if is_free(port) {
            return port;
        }
    }
    panic!("no free port between {} and {}", RANGE.start, RANGE.end);
}

/// Whether a server could listen on this port, on loopback and on all addresses.
pub fn is_free(port: u16) -> bool {
    // Both are tried: on some systems one of the two binds succeeds beside a listener on the other address.
    [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED]
        .into_iter()
        .all(|host| TcpListener::bind(SocketAddr::from((host, port))).is_ok())
}

/// The port that a server used last time if it is still free, else another one.
pub fn prefer(last: Option<u16>) -> u16 {
    last.filter(|port| is_free(*port)).unwrap_or_else(free_port)
}
