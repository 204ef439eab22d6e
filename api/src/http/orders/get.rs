//! `GET /api/v1/orders/{id}`.

use axum::{extract::State, http::HeaderMap, response::Response};
use shared::{cache::CachedOrder, domain::order::Order};

use super::{
    conditional::{parse_preconditions, respond_if_modified},
    openapi::{OrderErrors, OrderPath},
    path::OrderIdPath,
};
use crate::{
    auth::Caller,
    http::error::{ApiError, Problem},
    orders::rules::RuleViolation,
    state::AppState,
};

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
    OrderIdPath(id): OrderIdPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let preconditions = parse_preconditions(&headers)?;
    let order = state.orders.reader.read_order(caller.order(id)).await?;
    let CachedOrder { version, body, .. } =
        order.filter(|order| caller.may_access(order.owner)).ok_or_else(ApiError::not_found)?;
    if !preconditions.allow_read_of(version) {
        return Err(RuleViolation::VersionMismatch { current: version }.into());
    }
    Ok(respond_if_modified(&preconditions, &version.to_string(), body))
}
