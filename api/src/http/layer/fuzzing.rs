//! What the fuzz targets reach of the header parsers.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue};
use shared::platform::telemetry::TraceParent;

use super::{client, context};

/// Where a request comes from.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted_proxies: usize) -> IpAddr {
    client::client_address(peer, headers, trusted_proxies)
}

/// The id that a request goes by.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    context::request_id(headers)
}

/// The trace that a request continues.
pub fn incoming_trace(headers: &HeaderMap) -> Option<TraceParent> {
    context::incoming_trace(headers)
}
