//! `DELETE /api/v1/orders/{id}`.

use super::{
    openapi::{KeyHeader, MatchHeader, OrderErrors, OrderPath},
    write_request::WriteRequest,
};
use crate::{
    http::error::{ApiError, Problem},
    orders::{response::OrderResponse, writer::OrderChange},
};

/// Delete an order
///
/// The order and its lines are gone; its history stays.
#[utoipa::path(
    delete,
    path = "/api/v1/orders/{id}",
    tag = "orders",
    operation_id = "delete_order",
    params(OrderPath, MatchHeader, KeyHeader),
    responses(
        (status = 204, description = "Deleted", headers(
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this response was sent before"),
        )),
        OrderErrors,
        (status = 409, description = "The first request with this key is still running", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The key was used for another request", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn delete(request: WriteRequest) -> Result<OrderResponse, ApiError> {
    request.submit(OrderChange::Delete).await
}
