//! What the order routes have in common in the OpenAPI document. These types only describe: nothing builds them.

use shared::domain::order::Order;
use utoipa::{IntoParams, IntoResponses};

use crate::http::error::Problem;

/// The order in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OrderPath {
    /// The order's number.
    #[param(minimum = 1)]
    pub id: i64,
}

/// The header of requests that write.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct KeyHeader {
    /// 1 to 255 visible ASCII characters, bare or quoted. Requests with the same key take effect once, for 24 hours.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = r#"^([!#-~][!-~]*|"([!#-\[\]-~]|\\["\\])+")$"#,
        nullable = false
    )]
    pub idempotency_key: Option<String>,
}

/// The header of requests that change an order.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct MatchHeader {
    /// The versions that can be changed, as their `ETag`s, or `*`.
    #[param(rename = "If-Match", nullable = false, pattern = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#)]
    pub if_match: Option<String>,
}

/// The response to an update.
#[derive(IntoResponses)]
pub enum UpdatedOrder {
    /// The order as it is now
    #[response(status = 200, headers(
        ("ETag" = String, description = "Its version, quoted"),
        ("Idempotent-Replayed" = Option<String>, description = "`true` if this response was sent before"),
    ))]
    Updated(Order),
}

/// Problems of a request that names an order.
#[derive(IntoResponses)]
pub enum OrderErrors {
    /// A header is malformed.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(#[to_schema] Problem),
    /// There is no such order, or it is not the caller's.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] Problem),
    /// The precondition names another version; `current_version` is the one that it is at.
    #[response(status = 412, content_type = "application/problem+json")]
    VersionMismatch(#[to_schema] Problem),
}

/// Problems of a request that can carry a key.
#[derive(IntoResponses)]
pub enum WriteErrors {
    /// The state of the order does not allow it (`illegal_transition` with `from`, `to` and `allowed`,
    /// `order_not_editable`), another order of the customer has the reference (`reference_taken` with its `order_id`), or the first request with this key is still running (`idempotency_in_progress`).
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(#[to_schema] Problem),
    /// Every error of the request with its place (`validation_failed`), or the key was used for another request
    /// (`idempotency_key_reused`).
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(#[to_schema] Problem),
}

/// Problems of a request with a body.
#[derive(IntoResponses)]
pub enum BodyErrors {
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Problem),
    /// The body is not `application/json`.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(#[to_schema] Problem),
}
