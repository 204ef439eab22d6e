//! Cross-origin requests of browsers, which `CORS_ALLOWED_ORIGINS` allows.
//!
//! tower-http's `CorsLayer` responds to every `OPTIONS` request with 200; here only a preflight is answered, with 204, and
//! `OPTIONS` alone is 405. Inside `RequestLayer` it would also miss the layer's own 413, 429 and 504, and outside the log line.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use shared::platform::config::{ConfigError, Env, is_origin};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, traceparent, x-request-id, x-tenant-id",
);
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, idempotent-replayed, location, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-request-id",
);
/// Ten minutes, in seconds: no browser's limit is lower.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages can call from a browser.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Reads `CORS_ALLOWED_ORIGINS`: origins such as `https://shop.example`, separated by commas, or `*`.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let text = env.text("CORS_ALLOWED_ORIGINS").unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty())
            .map(parse_origin)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The `Access-Control-Allow-Origin` of a response to `origin`, if that origin is allowed.
    fn allowed_origin(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let any = self.0.iter().any(|allowed| allowed == "*");
        if any {
            // This is safe because tokens are sent in a header, never in a cookie.
            return Some(HeaderValue::from_static("*"));
        }
        self.0.contains(origin).then(|| origin.clone())
    }

    /// The response to a preflight request, if this is one and any origin is allowed.
    pub(super) fn preflight(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if self.0.is_empty() || !is_preflight {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Lets the page read the response, if its origin is allowed.
    pub(super) fn add_headers(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        // Also without an origin: a cache must not use this response for a request with one.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(allowed) = origin.and_then(|origin| self.allowed_origin(origin)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

fn parse_origin(text: &str) -> Result<HeaderValue, ConfigError> {
    let is_origin = text == "*" || is_origin(text);
    HeaderValue::from_str(text).ok().filter(|_| is_origin).ok_or_else(|| {
        ConfigError::new(
            "CORS_ALLOWED_ORIGINS",
            format!("{text:?} is not an origin such as https://shop.example"),
        )
    })
}
