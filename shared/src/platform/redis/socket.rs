//! The sockets of all connections.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};

/// After this time without acknowledgement the kernel closes the connection. The checks are usually faster.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// How often the kernel probes an idle connection, so that a firewall in between does not forget it.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How every connection notices a peer that is gone, and sends without delay.
pub(super) fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    // A command is small and its caller waits for the answer: the kernel must not delay it to join it with the next.
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    settings
}
