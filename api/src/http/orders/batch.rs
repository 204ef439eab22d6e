//! `POST /api/v1/orders/batch`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shared::{
    domain::{encoded::Encoded, event::Happened, order::Order},
    platform::telemetry::current_traceparent,
};
use utoipa::ToSchema;

use super::{
    body::{MAX_ORDERS, parse_new_orders},
    idempotency::{self, RowKeys},
    openapi::{BodyErrors, KeyHeader, WriteErrors},
    response::render_refusals,
    row_result::RowProblem,
};
use crate::{
    auth::Caller,
    http::{
        bytes_with_permit::bytes_with_permit,
        error::{ApiError, Code, FieldError, Problem},
        extract::{FieldErrors, JsonBody, field_code},
        layer::Context,
    },
    orders::{
        OrderBatch,
        input::{NewOrder, NewOrders, OnError},
        response::OrderResponse,
        row_keys::claim_for_rows,
    },
    state::AppState,
};

const ROUTE: &str = "/api/v1/orders/batch";

/// What became of the orders of a request.
#[derive(Serialize, ToSchema)]
struct BatchResults {
    /// A result for each order, in the order of the request.
    #[schema(min_items = 1, max_items = 100)]
    results: Vec<BatchResult>,
    /// Orders that are placed, now or by an earlier request with this key.
    #[schema(minimum = 0, maximum = 100)]
    created: usize,
    /// Orders that are not.
    #[schema(minimum = 0, maximum = 100)]
    failed: usize,
}

/// What became of one order.
#[derive(Serialize, ToSchema)]
struct BatchResult {
    /// The status that a request with this order alone would have had.
    #[schema(minimum = 201, maximum = 599)]
    status: u16,
    /// The order, if it is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Order>, nullable = false)]
    order: Option<Box<RawValue>>,
    /// Given, as `true`, if an earlier request with this key has placed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    replayed: Option<bool>,
    /// Why it is not placed. Pointers begin at the request, such as `/orders/3/lines/0/quantity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Problem>, nullable = false)]
    problem: Option<Box<RawValue>>,
}

/// Place up to 100 orders
///
/// With `on_error` `abort`, the default, all are placed in one transaction, or none: then the response is the problem, with the
/// errors of every order. If other orders have their references, that is a 409 with the places of all of them. With `skip`, each is placed by itself, and has a result of its own.
///
/// An `Idempotency-Key` makes repeating safe for 24 hours. With `abort` it stands for the whole request. With `skip`, order *n*
/// (from 1) has the key `KEY#n`: a repetition places what is missing, and returns what an earlier request has placed.
#[utoipa::path(
    post,
    path = "/api/v1/orders/batch",
    tag = "orders",
    operation_id = "create_orders",
    params(KeyHeader),
    request_body = NewOrders,
    responses(
        (status = 200, description = "A result for each order", body = BatchResults, headers(
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this response was sent before; with `abort`"),
        )),
        (status = 403, description = "An order is for another customer; with `abort`", body = Problem, content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    ),
)]
pub async fn batch(
    caller: Caller,
    State(state): State<AppState>,
    headers: HeaderMap,
    Extension(context): Extension<Arc<Context>>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let permit = Arc::new(state.bulk.admit_batch()?);
    let (on_error, parsed) = parse_new_orders(&body, caller, state.clock.latest_today())?;
    let happened = Happened {
        time: state.clock.now(),
        performed_by: caller.identity(),
        traceparent: current_traceparent(),
    };
    // The response is as large as the request, so it keeps the permit until it is sent. Orders that are being written keep it, too.
    match on_error {
        OnError::Abort => {
            let new = NewOrders { orders: require_all(parsed)?, on_error };
            let claim = idempotency::read_claim(&headers, caller, "POST", ROUTE, ROUTE, &new)?;
            let render_refusal = render_refusals(ROUTE.to_owned(), context.request_id().to_owned());
            let (tenant, new, held) = (caller.tenant, new.orders, Arc::clone(&permit));
            let batch = OrderBatch { tenant, new, claim, happened, permit: held };
            let placed = state.orders.place_all(batch, render_refusal, render_placed);
            let mut response = Box::pin(placed).await?;
            response.stored.body = bytes_with_permit(response.stored.body, permit);
            Ok(response.into_response())
        }
        OnError::Skip => {
            let keys = RowKeys::read(&headers, caller, ROUTE)?;
            if let Some(claim) = keys.claim_request("skip")? {
                claim_for_rows(&state.db, &claim).await?;
            }
            let place = |(index, parsed)| place_one(&state, &keys, &context, happened.clone(), index, parsed);
            let results = stream::iter((0_u64..).zip(parsed)).map(place).buffered(MAX_ORDERS);
            let body = render(Box::pin(results).collect().await);
            let json = [(header::CONTENT_TYPE, "application/json")];
            Ok((json, bytes_with_permit(body, permit)).into_response())
        }
    }
}

/// All orders, or one problem with the errors of every order.
fn require_all(parsed: Vec<Result<NewOrder, ApiError>>) -> Result<Vec<NewOrder>, ApiError> {
    let mut errors = FieldErrors::new();
    let mut orders = Vec::with_capacity(parsed.len());
    let mut references = HashMap::new();
    for (place, parsed) in parsed.into_iter().enumerate() {
        match parsed {
            Ok(new) => {
                if let Some(reference) = &new.reference
                    && let Some(first) = references.insert((new.customer_id, reference.clone()), place)
                {
                    let detail = format!("is the reference of /orders/{first}, too");
                    let pointer = format!("/orders/{place}/reference");
                    errors.push(FieldError::new(pointer, field_code::REFERENCE_TAKEN, detail));
                }
                orders.push(new);
            }
            Err(error) if error.code() == Code::ValidationFailed => {
                error.field_errors().iter().for_each(|error| errors.push(error.clone()));
            }
            Err(other) => return Err(other),
        }
    }
    errors.into_result(|| Some(orders))
}

/// Places one order by itself.
async fn place_one(
    state: &AppState,
    keys: &RowKeys,
    context: &Context,
    happened: Happened,
    index: u64,
    parsed: Result<NewOrder, ApiError>,
) -> BatchResult {
    let placed = async {
        let new = parsed?;
        let claim = keys.claim(index + 1, &new)?;
        let render_refusal = render_refusals(ROUTE.to_owned(), context.request_id().to_owned());
        let response = state.orders.place(keys.tenant(), new, claim, happened, render_refusal).await?;
        if let Some(problem) = RowProblem::of_response(&response)? {
            return Ok(BatchResult::refused(problem));
        }
        let OrderResponse { stored, replayed } = response;
        let order = serde_json::from_slice(&stored.body).map_err(ApiError::internal)?;
        Ok(BatchResult { replayed: replayed.then_some(true), ..BatchResult::placed(order) })
    };
    placed.await.unwrap_or_else(|error| BatchResult::refused(RowProblem::new(&error, ROUTE, context)))
}

/// The body of the response to orders that are all placed.
fn render_placed(orders: &[Encoded<Order>]) -> Bytes {
    let raw = orders.iter().filter_map(|order| to_raw_value(order).ok());
    render(raw.map(BatchResult::placed).collect())
}

fn render(results: Vec<BatchResult>) -> Bytes {
    let failed = results.iter().filter(|result| result.problem.is_some()).count();
    let created = results.len() - failed;
    serde_json::to_vec(&BatchResults { results, created, failed }).unwrap_or_default().into()
}

impl BatchResult {
    fn placed(order: Box<RawValue>) -> Self {
        Self { status: 201, order: Some(order), replayed: None, problem: None }
    }

    fn refused(RowProblem { status, document }: RowProblem) -> Self {
        Self { status, order: None, replayed: None, problem: Some(document) }
    }
}
