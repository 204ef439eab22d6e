//! Cross-origin requests of browsers: closed, unless `CORS_ALLOWED_ORIGINS` opens it.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use shared::platform::config::{ConfigError, Env, is_origin};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, traceparent, x-request-id",
);
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, idempotent-replayed, location, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-request-id",
);
/// Ten minutes: what every browser takes at most, or more.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Which origins may call from a browser.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Reads `CORS_ALLOWED_ORIGINS`: origins such as `https://shop.example`, separated by commas, or `*`.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let text = env.text("CORS_ALLOWED_ORIGINS").unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty())
            .map(origin)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The answer's `Access-Control-Allow-Origin` for a request from `origin`, where it is allowed.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let any = self.0.iter().any(|allowed| allowed == "*");
        if any {
            // Tokens are sent by header, never by cookie, so that nothing is given away by this.
            return Some(HeaderValue::from_static("*"));
        }
        self.0.contains(origin).then(|| origin.clone())
    }

    /// The answer to a preflight request, where this is one and CORS is open at all.
    pub(super) fn preflight(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if self.0.is_empty() || !is_preflight {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Lets the page that asked read the answer, where its origin is allowed.
    pub(super) fn open(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        // Also without an origin: a cache must not give this answer to one.
        answer.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(allowed) = origin.and_then(|origin| self.allow(origin)) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

fn origin(text: &str) -> Result<HeaderValue, ConfigError> {
    let is_origin = text == "*" || is_origin(text);
    HeaderValue::from_str(text).ok().filter(|_| is_origin).ok_or_else(|| {
        ConfigError::new(
            "CORS_ALLOWED_ORIGINS",
            format!("{text:?} is no origin such as https://shop.example"),
        )
    })
}
