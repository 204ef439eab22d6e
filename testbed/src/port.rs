//! Free loopback ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::Rng as _;

/// Below the ranges from which Linux and macOS take the local ports of outgoing connections, so that a port found
/// free here is not taken by a passing connection before the server that it is meant for listens on it.
const RANGE: Range<u16> = 20_000..32_000;

/// How many of them each test has for itself, for as many tests at a time as `.config/nextest.toml` allows: another one might
/// find a port free, too, before the server that it is meant for listens on it, or while that server is started again.
const OF_A_TEST: u16 = 180;

/// Where this process goes on to look. It begins anywhere, because a process may look that a test has started.
static NEXT: LazyLock<AtomicUsize> =
    LazyLock::new(|| AtomicUsize::new(rand::rng().random_range(0..RANGE.len())));

/// A loopback port on which nothing listens.
///
/// None is found twice before all others have been, because two servers of a test may start at the same time.
///
/// # Panics
///
/// When a thousand ports in a row are taken.
pub fn free_port() -> u16 {
    let ports = own_ports();
    let next = |_| ports.clone().nth(NEXT.fetch_add(1, Ordering::Relaxed) % ports.len());
    let free = (0..1000).filter_map(next).find(|port| is_free(*port));
    free.unwrap_or_else(|| panic!("no free port between {} and {}", ports.start, ports.end))
}

/// The ports from which this process picks: all, unless it is one of a test that nextest runs beside others.
fn own_ports() -> Range<u16> {
    let slot: Option<u16> = crate::setting("NEXTEST_TEST_GLOBAL_SLOT").and_then(|number| number.parse().ok());
    let Some(slot) = slot else { return RANGE };
    let first = RANGE.start + slot % ((RANGE.end - RANGE.start) / OF_A_TEST) * OF_A_TEST;
    first..first + OF_A_TEST
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
