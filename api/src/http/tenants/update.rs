//! `PATCH /api/v1/admin/tenants/{id}`.

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
};
use shared::{
    domain::tenant::TenantId,
    platform::db::{DbConnection, WriteError},
};

use super::{
    body::TenantUpdate,
    path::{TenantIdPath, TenantPath},
    write::{
        ROUTE_OF_ONE, read_claim, respond, respond_unchanged, respond_written, slug_taken, version_mismatch,
    },
};
use crate::{
    auth::Caller,
    db::{self, IdempotencyClaim, StoredResponse, Tenant, TenantWrite},
    http::{
        error::{ApiError, Code, FieldError, Problem},
        extract::{JsonBody, field_code},
        orders::{
            conditional::parse_preconditions,
            openapi::{BodyErrors, KeyHeader, MatchHeader},
        },
    },
    orders::{preconditions::Preconditions, response::OrderResponse},
    state::AppState,
};

/// How often a change is decided anew because another one was faster.
const ATTEMPTS: u32 = 10;

/// Change a tenant
///
/// Only what is named changes. A suspension takes effect within a second on every replica: the tenant's callers get 403
/// (`tenant_suspended`), and its open event streams, exports and imports end. An update that changes nothing returns the same version.
#[utoipa::path(
    patch,
    path = "/api/v1/admin/tenants/{id}",
    tag = "tenants",
    operation_id = "patch_tenant",
    params(TenantPath, MatchHeader, KeyHeader),
    request_body = TenantUpdate,
    responses(
        (status = 200, description = "The tenant as it is now", body = Tenant, headers(
            ("ETag" = String, description = "Its version, quoted"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this response was sent before"),
        )),
        (status = 404, description = "There is no such tenant", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another tenant has the slug (`slug_taken`), or this one is being removed (`tenant_being_removed`)",
         body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`If-Match` names another version; `current_version` is the one that it is at", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every error of the request with its place (`validation_failed`), or the key was used for another request (`idempotency_key_reused`)",
         body = Problem, content_type = "application/problem+json"),
        BodyErrors,
    ),
)]
pub async fn patch(
    caller: Caller,
    State(state): State<AppState>,
    TenantIdPath(id): TenantIdPath,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<OrderResponse, ApiError> {
    let preconditions = parse_preconditions(&headers)?;
    let update = TenantUpdate::parse(&body, &state.db).await?;
    let claim = read_claim(&headers, caller, ("PATCH", ROUTE_OF_ONE, uri.path()), &update)?;
    let claim = claim.as_ref();
    let written = change(&state, id, &preconditions, &update, claim).await;
    respond_written(&state, claim, written).await
}

/// Changes the tenant. Returns `None` if the key is taken.
async fn change(
    state: &AppState,
    id: TenantId,
    preconditions: &Preconditions,
    update: &TenantUpdate,
    claim: Option<&IdempotencyClaim>,
) -> Result<Option<StoredResponse>, ApiError> {
    for _ in 0..ATTEMPTS {
        let load = |mut db: DbConnection| async move { db::load_tenant(&mut db, id).await };
        let current = state.db.read_with_retry(load).await?.ok_or_else(ApiError::not_found)?;
        if !preconditions.allow_change_of(current.version) {
            return Err(version_mismatch(&current));
        }
        if current.removal.is_some() {
            return Err(ApiError::new(Code::TenantBeingRemoved, "the tenant is being removed"));
        }
        let before = current.settings();
        let after = update.apply(before.clone());
        if id.is_default() && after.suspended {
            let detail = "the default tenant cannot be suspended";
            return Err(ApiError::validation(vec![FieldError::new(
                "/suspended",
                field_code::INVALID_VALUE,
                detail,
            )]));
        }
        if after == before {
            return respond_unchanged(state, 200, &current, claim).await;
        }
        let (settings, expected) = (&after, current.version);
        let write = |mut db: DbConnection| async move {
            db::update_tenant(&mut db, id, expected, settings, claim, |tenant| respond(200, tenant)).await
        };
        match state.db.write_with_retry(false, write).await {
            Ok((Some(TenantWrite::Written(response)), _)) => return Ok(Some(response)),
            Ok((Some(TenantWrite::KeyTaken), _)) => return Ok(None),
            // Another change was faster, or an attempt of this one whose outcome was unknown.
            Ok((None, in_doubt)) => {
                let written = state.db.read_with_retry(load).await?.filter(|_| in_doubt);
                let is_this = |now: &Tenant| now.version == expected + 1 && now.settings() == after;
                if let Some(written) = written.filter(is_this) {
                    return Ok(Some(respond(200, &written)));
                }
            }
            Err(WriteError { error, .. }) if error.violates("tenants_slug_unique") => {
                return Err(slug_taken());
            }
            Err(WriteError { error, .. }) => return Err(error.into()),
        }
    }
    Err(ApiError::unavailable("other changes of the tenant are faster"))
}
