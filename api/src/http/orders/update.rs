//! `PUT` and `PATCH /api/v1/orders/{id}`: both change only what is named.

use super::{
    body::parse_update,
    openapi::{BodyErrors, KeyHeader, MatchHeader, OrderErrors, OrderPath, UpdatedOrder, WriteErrors},
    write_request::WriteRequest,
};
use crate::{
    http::{error::ApiError, extract::JsonBody},
    orders::{input::OrderUpdate, response::OrderResponse, writer::OrderChange},
};

/// Change an order
///
/// Only what is named changes. An update that changes nothing returns the same version. Date and lines can change while the order is
/// `PENDING`, reference and metadata in every status.
#[utoipa::path(
    put,
    path = "/api/v1/orders/{id}",
    tag = "orders",
    operation_id = "put_order",
    params(OrderPath, MatchHeader, KeyHeader),
    request_body = OrderUpdate,
    responses(UpdatedOrder, OrderErrors, BodyErrors, WriteErrors),
)]
pub async fn put(request: WriteRequest, JsonBody(body): JsonBody) -> Result<OrderResponse, ApiError> {
    update(request, &body).await
}

/// Change an order
///
/// The same as `PUT`: only what is named changes.
#[utoipa::path(
    patch,
    path = "/api/v1/orders/{id}",
    tag = "orders",
    operation_id = "patch_order",
    params(OrderPath, MatchHeader, KeyHeader),
    request_body = OrderUpdate,
    responses(UpdatedOrder, OrderErrors, BodyErrors, WriteErrors),
)]
pub async fn patch(request: WriteRequest, JsonBody(body): JsonBody) -> Result<OrderResponse, ApiError> {
    update(request, &body).await
}

async fn update(request: WriteRequest, body: &[u8]) -> Result<OrderResponse, ApiError> {
    let update = parse_update(body, request.state.clock.latest_today())?;
    let lines = update.lines.as_ref().map_or(0, Vec::len);
    let line_ids = request.state.orders.ids.take_for_lines(lines).await?;
    request.submit(OrderChange::Update(update, line_ids)).await
}
