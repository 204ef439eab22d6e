//! The tenant's number in the path.

use axum::{
    extract::{FromRequestParts, Path, rejection::PathRejection},
    http::request::Parts,
};
use shared::domain::tenant::TenantId;
use utoipa::IntoParams;

use crate::http::{error::ApiError, extract::Query};

/// The number in the path of a route that has no query parameters. A text that cannot be one names no tenant: 404.
#[derive(Clone, Copy, Debug)]
pub struct TenantIdPath(pub(super) TenantId);

impl<S: Send + Sync> FromRequestParts<S> for TenantIdPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(text) = text.map_err(|_| ApiError::not_found())?;
        // `i32` would also read `+7` and `007`: one tenant has one address.
        let id = text.parse::<i32>().ok().filter(|id| id.to_string() == text);
        let id = id.and_then(|id| TenantId::try_from(id).ok()).ok_or_else(ApiError::not_found)?;
        Query::reject_all(parts.uri.query())?;
        Ok(Self(id))
    }
}

/// The tenant in the path, in the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it only describes; nothing builds it")]
pub(super) struct TenantPath {
    /// The tenant's number.
    #[param(minimum = 1)]
    id: i32,
}
