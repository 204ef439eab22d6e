//! `PUT` and `PATCH /api/v1/orders/{id}`: alike, only what is named changes.

use axum::extract::State;
use shared::domain::order::{Order, OrderId, OrderStatus};
use time::Date;
use utoipa::ToSchema;

use super::{
    body::{self, InPath, LineBody},
    openapi::{BodyErrors, KeyHeader, MatchHeader, OrderErrors, OrderPath, WriteErrors},
    response::Answer,
    write_request::WriteRequest,
};
use crate::{
    auth::Caller,
    http::{
        error::ApiError,
        extract::{FieldErrors, JsonBody, Object, Value},
    },
    orders::{rules::Update, writer::Command},
    state::AppState,
};

/// What to change; what is not named stays.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"status": "SHIPPED"}))]
#[expect(dead_code, reason = "describes the body; `parse` reads it with all its faults")]
pub struct UpdateOrder {
    /// The next status, as the table of moves allows.
    #[schema(nullable = false)]
    status: Option<OrderStatus>,
    /// Another date, while the order is `PENDING`.
    #[schema(value_type = Option<String>, format = Date, nullable = false)]
    order_date: Option<Date>,
    /// All lines anew, while the order is `PENDING`. A line keeps its id where its product stays.
    #[schema(min_items = 1, max_items = 50, nullable = false)]
    lines: Option<Vec<LineBody>>,
}

pub(super) fn parse(body: &[u8], latest: Date) -> Result<Update, ApiError> {
    let mut faults = FieldErrors::new();
    let mut fields = Object::parse(body)?;
    let status = fields.optional("status", Value::parsed, &mut faults);
    let order_date = fields.optional("order_date", |value| body::order_date(value, latest), &mut faults);
    let lines = match fields.value("lines") {
        Some(value) => body::lines(&value, &mut faults).map(Some),
        None => Some(None),
    };
    fields.reject_unknown(&mut faults);
    faults.into_result(|| Some(Update { status: status?, order_date: order_date?, lines: lines? }))
}

/// Change an order
///
/// Only what is named changes. A change that changes nothing answers the same version.
#[utoipa::path(
    put,
    path = "/api/v1/orders/{id}",
    tag = "orders",
    operation_id = "put_order",
    params(OrderPath, MatchHeader, KeyHeader),
    request_body = UpdateOrder,
    responses(
        (status = 200, description = "The order as it is now", body = Order, headers(
            ("ETag" = String, description = "Its version, quoted"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` where this answer was given before"),
        )),
        OrderErrors,
        BodyErrors,
        WriteErrors,
    ),
)]
pub async fn put(
    caller: Caller,
    State(state): State<AppState>,
    InPath(id): InPath,
    request: WriteRequest,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    update(request, "PUT", caller, &state, id, &body).await
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
    request_body = UpdateOrder,
    responses(
        (status = 200, description = "The order as it is now", body = Order, headers(
            ("ETag" = String, description = "Its version, quoted"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` where this answer was given before"),
        )),
        OrderErrors,
        BodyErrors,
        WriteErrors,
    ),
)]
pub async fn patch(
    caller: Caller,
    State(state): State<AppState>,
    InPath(id): InPath,
    request: WriteRequest,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    update(request, "PATCH", caller, &state, id, &body).await
}

async fn update(
    request: WriteRequest,
    method: &'static str,
    caller: Caller,
    state: &AppState,
    id: OrderId,
    body: &[u8],
) -> Result<Answer, ApiError> {
    let update = parse(body, state.clock.latest_today())?;
    let spare = state.orders.ids.lines(update.lines.as_ref().map_or(0, Vec::len)).await?;
    request.send(method, caller, state, id, Command::Update(update, spare)).await
}
