//! What `PUT`, `PATCH` and `DELETE` have in common: preconditions, key, and the way to the writer.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use shared::{domain::order::OrderId, platform::telemetry::current_traceparent};

use super::{
    conditional::Preconditions,
    idempotency,
    response::{Answer, Asked},
};
use crate::{
    auth::Caller,
    http::{error::ApiError, layer::Context},
    orders::writer::{ChangeJob, Command},
    state::AppState,
};

const ROUTE: &str = "/api/v1/orders/{id}";

/// The head of a request that changes an order.
#[derive(Debug)]
pub struct WriteRequest {
    preconditions: Preconditions,
    headers: HeaderMap,
    asked: Asked,
}

impl<S: Sync> FromRequestParts<S> for WriteRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let context = parts.extensions.get::<Arc<Context>>();
        let request_id = context.map(|context| context.request_id().to_owned()).unwrap_or_default();
        Ok(Self {
            preconditions: Preconditions::parse(&parts.headers)?,
            headers: parts.headers.clone(),
            asked: Asked { path: parts.uri.path().to_owned(), request_id },
        })
    }
}

impl WriteRequest {
    /// Has the command carried out.
    pub(super) async fn send(
        self,
        method: &str,
        caller: Caller,
        state: &AppState,
        id: OrderId,
        command: Command,
    ) -> Result<Answer, ApiError> {
        let Self { preconditions, headers, asked } = self;
        let update = match &command {
            Command::Update(update, _) => Some(update),
            Command::Delete => None,
        };
        let claim = idempotency::claim(&headers, caller, method, ROUTE, &asked.path, &update)?;
        let traceparent = current_traceparent();
        state
            .orders
            .writer
            .change(|reply| ChangeJob {
                id,
                caller,
                preconditions,
                command,
                claim,
                asked,
                traceparent,
                races: 0,
                reply,
            })
            .await
    }
}
