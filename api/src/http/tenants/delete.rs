//! `DELETE /api/v1/admin/tenants/{id}`.

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
};
use shared::{domain::tenant::TenantId, platform::db::DbConnection};

use super::{
    path::{TenantIdPath, TenantPath},
    write::{ROUTE_OF_ONE, read_claim, respond, respond_unchanged, respond_written, version_mismatch},
};
use crate::{
    auth::Caller,
    db::{self, IdempotencyClaim, StoredResponse, Tenant, TenantWrite},
    http::{
        error::{ApiError, Code, Problem},
        orders::{
            conditional::parse_preconditions,
            openapi::{KeyHeader, MatchHeader},
        },
    },
    orders::{preconditions::Preconditions, response::OrderResponse},
    state::AppState,
};

/// How often a removal is decided anew because a change was faster.
const ATTEMPTS: u32 = 10;

/// Remove a tenant
///
/// Its callers get 403 within a second. A worker then removes everything of it, in steps: its orders with their lines, events and
/// history, its accounts, sessions, keys and dead letters, and what Redis and the broker hold. `GET` of the tenant shows in `removal` how far
/// it has come, and is 404 when it is done. There is no way back. Repeating the request changes nothing.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/tenants/{id}",
    tag = "tenants",
    operation_id = "delete_tenant",
    params(TenantPath, MatchHeader, KeyHeader),
    responses(
        (status = 202, description = "It is being removed", body = Tenant, headers(
            ("ETag" = String, description = "Its version, quoted"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this response was sent before"),
        )),
        (status = 404, description = "There is no such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is the default tenant, which must stay (`default_tenant`)", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`If-Match` names another version; `current_version` is the one that it is at", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The query has parameters (`validation_failed`), or the key was used for another request (`idempotency_key_reused`)",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn delete(
    caller: Caller,
    State(state): State<AppState>,
    TenantIdPath(id): TenantIdPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<OrderResponse, ApiError> {
    let preconditions = parse_preconditions(&headers)?;
    let claim = read_claim(&headers, caller, ("DELETE", ROUTE_OF_ONE, uri.path()), &())?;
    let claim = claim.as_ref();
    let written = begin(&state, id, &preconditions, claim).await;
    respond_written(&state, claim, written).await
}

/// Begins the removal, unless it has begun. Returns `None` if the key is taken.
async fn begin(
    state: &AppState,
    id: TenantId,
    preconditions: &Preconditions,
    claim: Option<&IdempotencyClaim>,
) -> Result<Option<StoredResponse>, ApiError> {
    if id.is_default() {
        return Err(ApiError::new(Code::DefaultTenant, "the default tenant cannot be removed"));
    }
    let accepted = |tenant: &Tenant| respond(202, tenant);
    for _ in 0..ATTEMPTS {
        let load = |mut db: DbConnection| async move { db::load_tenant(&mut db, id).await };
        let current = state.db.read_with_retry(load).await?.ok_or_else(ApiError::not_found)?;
        if !preconditions.allow_change_of(current.version) {
            return Err(version_mismatch(&current));
        }
        if current.removal.is_some() {
            return respond_unchanged(state, 202, &current, claim).await;
        }
        let expected = current.version;
        let write = |mut db: DbConnection| async move {
            db::begin_removal(&mut db, id, expected, claim, accepted).await
        };
        match state.db.write_with_retry(false, write).await {
            Ok((Some(TenantWrite::Written(response)), _)) => return Ok(Some(response)),
            Ok((Some(TenantWrite::KeyTaken), _)) => return Ok(None),
            // A change was faster, or an attempt of this one whose outcome was unknown.
            Ok((None, in_doubt)) => {
                let begun = state.db.read_with_retry(load).await?.filter(|_| in_doubt);
                let is_this = |now: &Tenant| now.version == expected + 1 && now.removal.is_some();
                if let Some(begun) = begun.filter(is_this) {
                    return Ok(Some(accepted(&begun)));
                }
            }
            Err(failed) => return Err(failed.error.into()),
        }
    }
    Err(ApiError::unavailable("changes of the tenant are faster"))
}
