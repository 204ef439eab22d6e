//! `GET /api/v1/orders/{id}`.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use shared::{cache::CachedOrder, domain::order::Order};

use super::{
    body::InPath,
    conditional::{Preconditions, etag},
    openapi::{OrderErrors, OrderPath},
};
use crate::{
    auth::Caller,
    http::error::{ApiError, Problem},
    orders::rules::RuleViolation,
    state::AppState,
};

/// Answers are the caller's alone, and are asked for again each time, which the `ETag` makes cheap.
pub(super) const CACHE_CONTROL: (HeaderName, &str) = (header::CACHE_CONTROL, "private, no-cache");

/// Show an order
#[utoipa::path(
    get,
    path = "/api/v1/orders/{id}",
    tag = "orders",
    operation_id = "get_order",
    params(
        OrderPath,
        ("If-None-Match" = Option<String>, Header, description = "Versions at hand, as their `ETag`s, or `*`",
         nullable = false, pattern = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#),
    ),
    responses(
        (status = 200, description = "The order", body = Order, headers(("ETag" = String, description = "Its version, quoted"))),
        (status = 304, description = "The version at hand is the current one", headers(("ETag" = String, description = "Its version, quoted"))),
        (status = 422, description = "The query has parameters", body = Problem, content_type = "application/problem+json"),
        OrderErrors,
    ),
)]
pub async fn get(
    caller: Caller,
    State(state): State<AppState>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let preconditions = Preconditions::parse(&headers)?;
    let found = state.orders.reader.read(id).await?;
    let CachedOrder { version, body, .. } =
        found.filter(|order| caller.may_access(order.owner)).ok_or_else(ApiError::not_found)?;
    if !preconditions.allow_read_of(version) {
        return Err(RuleViolation::VersionMismatch { current: version }.into());
    }
    let tag = (header::ETAG, etag(version));
    if preconditions.not_modified(version) {
        return Ok((StatusCode::NOT_MODIFIED, [tag], [CACHE_CONTROL]).into_response());
    }
    Ok(([tag], [CACHE_CONTROL, (header::CONTENT_TYPE, "application/json")], body).into_response())
}
