//! Limits of connections.

use std::time::Duration;

/// Limits of one connection, and of all together.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at once. A new one closes the connection that has waited longest for its client.
    pub connections: usize,
    /// Connections of one address at once (of one /64 with IPv6), at most a quarter of all. `None` behind a proxy,
    /// whose address all clients share.
    pub connections_per_address: Option<usize>,
    /// How long the head of a request can take, also the next one of an idle connection.
    pub header_read_timeout: Duration,
    /// Bytes of a request's head, and of what is read ahead.
    pub header_bytes: usize,
    /// How long a client can take to accept the next 32 KiB of its responses.
    pub write_timeout: Duration,
    /// Bytes of all large responses that wait to be sent.
    pub response_budget: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_address: Some(2048),
            header_read_timeout: Duration::from_secs(20),
            header_bytes: 32 * 1024,
            write_timeout: Duration::from_secs(20),
            response_budget: 64 * 1024 * 1024,
        }
    }
}

impl ServerLimits {
    /// The default behind this many proxies.
    pub fn behind(trusted_proxies: usize) -> Self {
        let limits = Self::default();
        if trusted_proxies == 0 { limits } else { Self { connections_per_address: None, ..limits } }
    }
}
