//! `GET /api/v1/admin/tenants`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use shared::platform::db::DbConnection;
use utoipa::{IntoParams, ToSchema};

use crate::{
    auth::Caller,
    db::{self, Tenant},
    http::{
        error::{ApiError, Problem},
        extract::{FieldErrors, Query, field_code},
    },
    state::AppState,
};

/// Which page of the tenants.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Tenants of a page.
    #[param(required = false, minimum = 1, maximum = 100, default = 10)]
    size: i64,
    /// Where to continue: the `next_cursor` of a response.
    #[param(value_type = Option<String>, nullable = false, pattern = "^[A-Za-z0-9_-]{6}$")]
    cursor: Option<i32>,
}

/// A page of the tenants, oldest first.
#[derive(Serialize, ToSchema)]
pub struct TenantList {
    /// The tenants.
    tenants: Vec<Tenant>,
    /// Whether tenants follow.
    has_next: bool,
    /// Where to continue; `null` if nothing follows.
    next_cursor: Option<String>,
}

impl ListQuery {
    fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut query = Query::parse(query);
        let size = query.integer("size", 1..=100, &mut errors).unwrap_or(10);
        let cursor = query.optional("cursor", parse_cursor, &mut errors);
        query.reject_unknown(&mut errors);
        errors.into_result(|| Some(Self { size, cursor }))
    }
}

/// List tenants
///
/// Oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/admin/tenants",
    tag = "tenants",
    operation_id = "list_tenants",
    params(ListQuery),
    responses(
        (status = 200, description = "The page", body = TenantList),
        (status = 422, description = "Every error of the query", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    _operator: Caller,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<TenantList>, ApiError> {
    let ListQuery { size, cursor } = ListQuery::parse(query.as_deref())?;
    let after = cursor.unwrap_or(0);
    let load = |mut db: DbConnection| async move { db::load_tenants(&mut db, after, size + 1).await };
    let mut tenants = state.db.read_with_retry(load).await?;
    let page = usize::try_from(size).unwrap_or(usize::MAX);
    let has_next = tenants.len() > page;
    tenants.truncate(page);
    let next_cursor = tenants.last().filter(|_| has_next).map(|tenant| encode_cursor(tenant.id.get()));
    Ok(Json(TenantList { tenants, has_next, next_cursor }))
}

/// The opaque cursor: the number of the last tenant of a page.
fn encode_cursor(last: i32) -> String {
    URL_SAFE_NO_PAD.encode(last.to_be_bytes())
}

fn parse_cursor(text: &str) -> Result<i32, (&'static str, String)> {
    let bytes: Option<[u8; 4]> = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(i32::from_be_bytes)
        .filter(|last| *last > 0)
        .ok_or_else(|| (field_code::INVALID_VALUE, "must be the next_cursor of an answer".to_owned()))
}
