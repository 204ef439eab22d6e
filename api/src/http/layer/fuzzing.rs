//! The parsers of headers, for the fuzz targets.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue};
use shared::platform::telemetry::TraceParent;

use super::{client, context};

/// The client's address.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted_proxies: usize) -> IpAddr {
    client::client_address(peer, headers, trusted_proxies)
}

/// The id of a request.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    context::request_id(headers)
}

/// The trace that a request continues.
pub fn incoming_trace(headers: &HeaderMap) -> Option<TraceParent> {
    context::incoming_trace(headers)
}
