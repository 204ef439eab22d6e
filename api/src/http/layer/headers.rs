//! Headers that every answer carries.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Set on every answer. HSTS is not among them: it belongs to whoever terminates TLS.
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
];

/// An answer is data: were a browser led to show it, nothing in it may run. `/docs` sets its own.
const NOTHING_RUNS: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Answers belong to one caller. One with an `ETag` may be kept by that caller, who must ask whether it still holds.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const DO_NOT_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Adds the security headers, leaving those that a handler has set itself.
pub(super) fn secure(headers: &mut HeaderMap) {
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
