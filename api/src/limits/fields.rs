//! What a limit tells the client: the `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers-10, and 429.

use std::{fmt::Write as _, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Decision, Policy};
use crate::http::error::{ApiError, Code};

/// How much is left, and when the quota is whole again.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The quotas themselves.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Adds both fields, one list member per limit that looked at the request.
pub(crate) fn add_fields(headers: &mut HeaderMap, decisions: &[Decision]) {
    if decisions.is_empty() {
        return;
    }
    let (mut left, mut policy) = (String::new(), String::new());
    for decision in decisions {
        let separator = if left.is_empty() { "" } else { ", " };
        let Decision { policy: Policy { name, quota, .. }, remaining, reset, .. } = decision;
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

impl Decision {
    /// 429 where the request is beyond the limit.
    pub fn check(self) -> Result<(), ApiError> {
        if self.allowed {
            return Ok(());
        }
        let seconds = whole_seconds(self.retry_after).max(1);
        let Policy { counts, quota, .. } = self.policy;
        let detail = format!("more than {} {counts} in {} s", quota.requests(), quota.seconds());
        Err(ApiError::new(Code::RateLimited, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(seconds)))
    }
}

/// Rounded up: a client that waits this long is never early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
