//! `GET /api/v1/admin/tenants/{id}`.

use axum::{extract::State, http::HeaderMap, response::Response};
use shared::platform::db::DbConnection;

use super::{
    path::{TenantIdPath, TenantPath},
    write::version_mismatch,
};
use crate::{
    auth::Caller,
    db::{self, Tenant},
    http::{
        error::{ApiError, Problem},
        orders::conditional::{parse_preconditions, respond_if_modified},
    },
    state::AppState,
};

/// Show a tenant
#[utoipa::path(
    get,
    path = "/api/v1/admin/tenants/{id}",
    tag = "tenants",
    operation_id = "get_tenant",
    params(
        TenantPath,
        ("If-None-Match" = Option<String>, Header, description = "Versions at hand, as their `ETag`s, or `*`",
         nullable = false, pattern = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#),
    ),
    responses(
        (status = 200, description = "The tenant", body = Tenant, headers(("ETag" = String, description = "Its version, quoted"))),
        (status = 304, description = "The version at hand is the current one", headers(("ETag" = String, description = "Its version, quoted"))),
        (status = 404, description = "There is no such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`If-Match` names another version; `current_version` is the one that it is at", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The query has parameters", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn get(
    _operator: Caller,
    State(state): State<AppState>,
    TenantIdPath(id): TenantIdPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let preconditions = parse_preconditions(&headers)?;
    let load = |mut db: DbConnection| async move { db::load_tenant(&mut db, id).await };
    let tenant = state.db.read_with_retry(load).await?.ok_or_else(ApiError::not_found)?;
    if !preconditions.allow_read_of(tenant.version) {
        return Err(version_mismatch(&tenant));
    }
    let body = serde_json::to_vec(&tenant).map_err(ApiError::internal)?;
    Ok(respond_if_modified(&preconditions, &tenant.version.to_string(), body.into()))
}
