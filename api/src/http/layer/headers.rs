//! Headers of every response.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Set on every response. HSTS is not among them: it belongs to the proxy that terminates TLS.
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
];

/// A response is data: if a browser shows it, nothing in it can run. `/docs` sets a policy of its own.
const NOTHING_RUNS: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Responses belong to one caller. A response with an `ETag` can be cached by that caller, who must revalidate it.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const DO_NOT_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Adds the security headers. Policies that a handler has set stay.
pub(super) fn add_security_headers(headers: &mut HeaderMap) {
    headers.reserve(ALWAYS.len() + 3);
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, NOTHING_RUNS);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        let policy = if headers.contains_key(header::ETAG) { REVALIDATE } else { DO_NOT_STORE };
        headers.insert(header::CACHE_CONTROL, policy);
    }
}
