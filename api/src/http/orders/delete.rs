//! `DELETE /api/v1/orders/{id}`.

use axum::extract::State;

use super::{
    body::InPath,
    openapi::{KeyHeader, MatchHeader, OrderErrors, OrderPath},
    response::Answer,
    write_request::WriteRequest,
};
use crate::{
    auth::Caller,
    http::error::{ApiError, Problem},
    orders::writer::Command,
    state::AppState,
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
            ("Idempotent-Replayed" = Option<String>, description = "`true` where this answer was given before"),
        )),
        OrderErrors,
        (status = 409, description = "The first request with this key is still running", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The key was used for another request", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn delete(
    caller: Caller,
    State(state): State<AppState>,
    InPath(id): InPath,
    request: WriteRequest,
) -> Result<Answer, ApiError> {
    request.send("DELETE", caller, &state, id, Command::Delete).await
}
