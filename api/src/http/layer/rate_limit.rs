//! What rate limits report to the client: the `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers-10, and 429.

use std::{fmt::Write as _, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    http::error::{ApiError, Code},
    limits::{LimitCheck, LimitExceeded, Policy},
};

/// How much is left, and when the quota is whole again.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The quotas themselves.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Adds both fields, with one list member for each limit that was checked.
pub(super) fn add_fields(headers: &mut HeaderMap, checks: &[LimitCheck]) {
    if checks.is_empty() {
        return;
    }
    let (mut left, mut policy) = (String::new(), String::new());
    for check in checks {
        let separator = if left.is_empty() { "" } else { ", " };
        let LimitCheck { policy: Policy { name, quota, .. }, remaining, reset, .. } = check;
        // Writing to a String cannot fail.
        let _ = write!(left, "{separator}\"{name}\";r={remaining};t={}", whole_seconds(*reset));
        let _ = write!(policy, "{separator}\"{name}\";q={};w={}", quota.requests(), quota.seconds());
    }
    for (name, value) in [(RATE_LIMIT, left), (RATE_LIMIT_POLICY, policy)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

impl From<LimitExceeded> for ApiError {
    /// 429 with `Retry-After`.
    fn from(error: LimitExceeded) -> Self {
        let seconds = whole_seconds(error.retry_after).max(1);
        Self::new(Code::RateLimited, error.to_string())
            .with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }
}

/// Rounded up: a client that waits this long is never early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
