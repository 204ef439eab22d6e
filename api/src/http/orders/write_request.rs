//! What `PUT`, `PATCH` and `DELETE` have in common: caller, order, preconditions, key, and the way to the writer.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, request::Parts},
};
use shared::{domain::order::OrderId, platform::telemetry::current_traceparent};

use super::{conditional::parse_preconditions, idempotency, path::OrderIdPath, response::render_refusals};
use crate::{
    auth::Caller,
    http::{error::ApiError, layer::Context},
    orders::{
        preconditions::Preconditions,
        response::OrderResponse,
        writer::{ChangeJob, OrderChange},
    },
    state::AppState,
};

const ROUTE: &str = "/api/v1/orders/{id}";

/// A request that changes an order, without its body.
pub struct WriteRequest {
    pub(super) state: AppState,
    caller: Caller,
    id: OrderId,
    preconditions: Preconditions,
    method: Method,
    headers: HeaderMap,
    path: String,
    request_id: String,
}

impl FromRequestParts<AppState> for WriteRequest {
    type Rejection = ApiError;

    /// The order of the checks decides which refusal a client sees: 401, then 404, then the query and the headers.
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let OrderIdPath(id) = OrderIdPath::from_request_parts(parts, state).await?;
        let context = parts.extensions.get::<Arc<Context>>();
        let request_id = context.map(|context| context.request_id().to_owned()).unwrap_or_default();
        Ok(Self {
            state: state.clone(),
            caller,
            id,
            preconditions: parse_preconditions(&parts.headers)?,
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            path: parts.uri.path().to_owned(),
            request_id,
        })
    }
}

impl WriteRequest {
    /// Hands the change to the writer, and waits for the response.
    pub(super) async fn submit(self, change: OrderChange) -> Result<OrderResponse, ApiError> {
        let Self { state, caller, id, preconditions, method, headers, path, request_id } = self;
        let update = match &change {
            OrderChange::Update(update, _) => Some(update),
            OrderChange::Delete => None,
        };
        let claim = idempotency::read_claim(&headers, caller, method.as_str(), ROUTE, &path, &update)?;
        let job = |reply| ChangeJob {
            id,
            caller,
            preconditions,
            change,
            claim,
            render_refusal: render_refusals(path, request_id),
            traceparent: current_traceparent(),
            races: 0,
            reply,
        };
        Ok(state.orders.writer.change(job).await?)
    }
}
