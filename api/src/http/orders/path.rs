//! The order's id in the path.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Path, rejection::PathRejection},
    http::request::Parts,
};
use shared::domain::order::OrderId;

use crate::http::{error::ApiError, extract::Query, layer::Context};

/// The id in the path of a route that has no query parameters. A text that cannot be an id names no order: 404.
#[derive(Clone, Copy, Debug)]
pub struct OrderIdPath(pub OrderId);

/// The id in the path of a route whose handler reads the query itself.
#[derive(Clone, Copy, Debug)]
pub struct OrderIdPathWithQuery(pub OrderId);

impl<S: Send + Sync> FromRequestParts<S> for OrderIdPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let OrderIdPathWithQuery(id) = OrderIdPathWithQuery::from_request_parts(parts, state).await?;
        Query::reject_all(parts.uri.query())?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OrderIdPathWithQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(text) = text.map_err(|_| ApiError::not_found())?;
        // `i64` would also read `+7` and `007`: one order has one address.
        let id = text.parse::<i64>().ok().filter(|id| id.to_string() == text);
        let id = id.and_then(|id| OrderId::try_from(id).ok()).ok_or_else(ApiError::not_found)?;
        if let Some(context) = parts.extensions.get::<Arc<Context>>() {
            context.set_order(id);
        }
        Ok(Self(id))
    }
}
