//! What creating and changing a tenant have in common: the response, and repeating a request by its key.

use axum::http::HeaderMap;
use serde::Serialize;
use shared::platform::db::DbConnection;

use crate::{
    auth::Caller,
    db::{self, IdempotencyClaim, StoredResponse, Tenant},
    http::{
        error::{ApiError, Code},
        orders::idempotency,
    },
    orders::{OrderError, preconditions::etag, response::OrderResponse},
    state::AppState,
};

/// The path of all tenants.
pub(super) const ROUTE: &str = "/api/v1/admin/tenants";
/// The path of one.
pub(super) const ROUTE_OF_ONE: &str = "/api/v1/admin/tenants/{id}";

/// Reads the claim of a request on its key, if it carries one.
pub(super) fn read_claim(
    headers: &HeaderMap,
    caller: Caller,
    (method, route, path): (&str, &str, &str),
    body: &impl Serialize,
) -> Result<Option<IdempotencyClaim>, ApiError> {
    idempotency::read_claim(headers, caller, method, route, path, body)
}

/// A response with the tenant.
pub(super) fn respond(status: i16, tenant: &Tenant) -> StoredResponse {
    let mut headers =
        vec![("content-type".into(), "application/json".to_owned()), ("etag".into(), etag(tenant.version))];
    if status == 201 {
        headers.push(("location".into(), format!("{ROUTE}/{}", tenant.id)));
    }
    StoredResponse { status, headers, body: serde_json::to_vec(tenant).unwrap_or_default().into() }
}

/// The response that stands under the key of a request that wrote nothing: if it was sent before, it is sent again, and otherwise the
/// request is refused.
pub(super) async fn replay_or(
    state: &AppState,
    claim: Option<&IdempotencyClaim>,
    refusal: ApiError,
) -> Result<OrderResponse, ApiError> {
    let Some(claim) = claim else { return Err(refusal) };
    let name = [(claim.caller, claim.key.as_str())];
    let stored = state
        .db
        .read_with_retry(|mut db| async move { db::load_responses(&mut db, &name).await })
        .await?
        .into_values()
        .next();
    match stored {
        Some(stored)
            if stored.request_hash == claim.request_hash
                && stored.context_hash == Some(claim.context_hash) =>
        {
            Ok(OrderResponse::replayed(stored.response))
        }
        Some(_) => Err(OrderError::KeyReused.into()),
        None => Err(refusal),
    }
}

/// 412: the precondition does not allow the version that the tenant is at.
pub(super) fn version_mismatch(tenant: &Tenant) -> ApiError {
    let detail =
        format!("the tenant is at version {}, which the precondition does not allow", tenant.version);
    ApiError::new(Code::VersionMismatch, detail).with_fact("current_version", tenant.version)
}

/// Responds with what a change has written, `None` if the key is taken, or its refusal; or as before, if the request was sent before.
pub(super) async fn respond_written(
    state: &AppState,
    claim: Option<&IdempotencyClaim>,
    written: Result<Option<StoredResponse>, ApiError>,
) -> Result<OrderResponse, ApiError> {
    match written {
        Ok(Some(response)) => {
            // Best effort: every process reads the table again within a second.
            let _read_soon = state.tenants.reload().await;
            Ok(OrderResponse::first(response))
        }
        Ok(None) => replay_or(state, claim, OrderError::KeyInProgress.into()).await,
        Err(refusal) if refusal.status().is_client_error() => replay_or(state, claim, refusal).await,
        Err(error) => Err(error),
    }
}

/// The response to a request that changes nothing, stored under its key. Returns `None` if the key is taken.
pub(super) async fn respond_unchanged(
    state: &AppState,
    status: i16,
    tenant: &Tenant,
    claim: Option<&IdempotencyClaim>,
) -> Result<Option<StoredResponse>, ApiError> {
    let response = respond(status, tenant);
    if let Some(claim) = claim {
        let rows = [(claim, &response)];
        let rows = rows.as_slice();
        let store = |mut db: DbConnection| async move { db::store_responses(&mut db, rows).await };
        let (stored, _) = state.db.write_with_retry(false, store).await.map_err(|failed| failed.error)?;
        if stored.is_empty() {
            return Ok(None);
        }
    }
    Ok(Some(response))
}

/// 409: another tenant has the slug.
pub(super) fn slug_taken() -> ApiError {
    ApiError::new(Code::SlugTaken, "another tenant has this slug")
}
