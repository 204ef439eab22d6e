//! `POST /api/v1/orders`.

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
};
use serde::Serialize;
use shared::{
    event::{Event, Happened},
    order::{CustomerId, Order, OrderLine, OrderStatus},
    telemetry::current_traceparent,
};
use time::Date;
use utoipa::ToSchema;

use super::{
    answer::Answer,
    decide::LineInput,
    described::{KeyHeader, OfBody, OfWriting},
    fields::{self, LineBody},
    key,
    writer::CreateJob,
};
use crate::{
    auth::{Caller, Role},
    error::{ApiError, Code, Problem},
    extract::{Faults, JsonBody, Object, Value, fault},
    state::AppState,
};

const ROUTE: &str = "/api/v1/orders";

/// An order to place.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"order_date": "2025-01-20", "lines": [
    {"product_id": 1001, "quantity": 2, "unit_price": 25.50}, {"product_id": 1002, "quantity": 1, "unit_price": "15.00"}]}))]
#[expect(dead_code, reason = "describes the body; `parse` reads it with all its faults")]
pub struct CreateOrder {
    /// Whose order it is: the caller's where it is left out. Only an administrator may, and must, name somebody.
    #[schema(nullable = false)]
    customer_id: Option<CustomerId>,
    /// Not after today anywhere on Earth.
    #[schema(value_type = String, format = Date)]
    order_date: Date,
    /// May be said, and then only `PENDING`.
    #[schema(value_type = Option<String>, nullable = false, pattern = "^PENDING$")]
    status: Option<OrderStatus>,
    /// What is ordered.
    #[schema(min_items = 1, max_items = 50)]
    lines: Vec<LineBody>,
}

/// The request as it was understood: what makes two requests the same.
#[derive(Debug, Serialize)]
pub(super) struct Command {
    customer_id: CustomerId,
    #[serde(with = "shared::timestamp::date")]
    order_date: Date,
    lines: Vec<LineInput>,
}

impl Command {
    pub(super) fn parse(body: &[u8], caller: Caller, latest: Date) -> Result<Self, ApiError> {
        let mut faults = Faults::new();
        let mut fields = Object::parse(body)?;
        let customer_id = match caller.role {
            Role::Admin => fields.required("customer_id", Value::id, &mut faults),
            Role::Customer => fields
                .optional("customer_id", Value::id, &mut faults)
                .map(|named| named.unwrap_or(caller.customer_id)),
        };
        let order_date =
            fields.required("order_date", |value| fields::order_date(value, latest), &mut faults);
        fields.optional(
            "status",
            |value| match value.parsed()? {
                OrderStatus::Pending => Ok(()),
                _ => Err(value.fault(fault::INVALID_VALUE, "an order begins as PENDING")),
            },
            &mut faults,
        );
        let lines = fields.required_value("lines", &mut faults);
        let lines = lines.and_then(|value| fields::lines(&value, &mut faults));
        fields.finish(&mut faults);
        let command = faults.unless_any(|| {
            Some(Self { customer_id: customer_id?, order_date: order_date?, lines: lines? })
        })?;
        if caller.may_access(command.customer_id) {
            Ok(command)
        } else {
            Err(ApiError::new(Code::Forbidden, "a customer may only place orders of its own"))
        }
    }
}

/// Place an order
///
/// Its total is computed. With an `Idempotency-Key` the request may be repeated safely for 24 hours.
#[utoipa::path(
    post,
    path = "/api/v1/orders",
    tag = "orders",
    operation_id = "create_order",
    params(KeyHeader),
    request_body = CreateOrder,
    responses(
        (status = 201, description = "Placed", body = Order, headers(
            ("Location" = String, description = "Where the order is"),
            ("ETag" = String, description = "Its version, quoted"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` where this answer was given before"),
        )),
        (status = 403, description = "The body names another customer", body = Problem, content_type = "application/problem+json"),
        OfBody,
        OfWriting,
    ),
)]
pub async fn create(
    caller: Caller,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let command = Command::parse(&body, caller, state.clock.latest_today())?;
    let claim = key::claim(&headers, caller.customer_id, "POST", ROUTE, uri.path(), &command)?;
    let order = new_order(command, &state).await?;

    let happened = Happened {
        time: order.created_at,
        performed_by: caller.customer_id,
        traceparent: current_traceparent(),
    };
    let event = Event::created(order, happened).map_err(ApiError::internal)?;
    let answer = Answer::created(&event.data.order);
    let envelope = event.to_envelope();
    let order = event.data.order.into_value();
    state.orders.writer.create(|reply| CreateJob { order, event: envelope, answer, claim, reply }).await
}

async fn new_order(command: Command, state: &AppState) -> Result<Order, ApiError> {
    let (id, line_ids) = state.orders.ids.order(command.lines.len()).await?;
    let lines: Vec<OrderLine> =
        command.lines.into_iter().zip(line_ids).map(|(line, id)| line.with_id(id)).collect();
    let now = state.clock.now();
    Ok(Order {
        id,
        customer_id: command.customer_id,
        order_date: command.order_date,
        status: OrderStatus::Pending,
        total_amount: lines.iter().map(OrderLine::total).sum(),
        version: 1,
        created_at: now,
        updated_at: now,
        lines,
    })
}
