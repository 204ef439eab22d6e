//! `POST /api/v1/orders`.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Uri},
};
use shared::{
    domain::{event::Happened, order::Order},
    platform::telemetry::current_traceparent,
};

use super::{
    body::parse_new_order,
    idempotency,
    openapi::{BodyErrors, KeyHeader, WriteErrors},
    response::render_refusals,
};
use crate::{
    auth::Caller,
    http::{
        error::{ApiError, Problem},
        extract::JsonBody,
        layer::Context,
    },
    orders::{input::NewOrder, response::OrderResponse},
    state::AppState,
};

const ROUTE: &str = "/api/v1/orders";

/// Place an order
///
/// Its total is computed. One order of a customer has a reference: asking for it again is a 409 that names that order. With an `Idempotency-Key` the request can be repeated safely for 24 hours.
#[utoipa::path(
    post,
    path = "/api/v1/orders",
    tag = "orders",
    operation_id = "create_order",
    params(KeyHeader),
    request_body = NewOrder,
    responses(
        (status = 201, description = "Placed", body = Order, headers(
            ("Location" = String, description = "Where the order is"),
            ("ETag" = String, description = "Its version, quoted"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this response was sent before"),
        )),
        (status = 403, description = "The body names another customer", body = Problem, content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    ),
)]
pub async fn create(
    caller: Caller,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    Extension(context): Extension<Arc<Context>>,
    JsonBody(body): JsonBody,
) -> Result<OrderResponse, ApiError> {
    let new = parse_new_order(&body, caller, state.clock.latest_today())?;
    let claim = idempotency::read_claim(&headers, caller, "POST", ROUTE, uri.path(), &new)?;
    let happened = Happened {
        time: state.clock.now(),
        performed_by: caller.identity(),
        traceparent: current_traceparent(),
    };
    let render_refusal = render_refusals(uri.path().to_owned(), context.request_id().to_owned());
    let response = state.orders.place(caller.tenant, new, claim, happened, render_refusal).await?;
    // If the response is replayed, this is the order of the first request.
    if let Some(created) = response.created_order() {
        context.set_order(created);
    }
    Ok(response)
}
