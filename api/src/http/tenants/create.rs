//! `POST /api/v1/admin/tenants`.

use axum::{extract::State, http::HeaderMap};
use shared::platform::db::{DbConnection, WriteError};

use super::{
    body::{NewTenant, parse_new_tenant},
    write::{ROUTE, read_claim, replay_or, respond, slug_taken},
};
use crate::{
    auth::Caller,
    db::{self, Tenant, TenantSettings, TenantWrite},
    http::{
        error::{ApiError, Problem},
        extract::JsonBody,
        orders::openapi::{BodyErrors, KeyHeader},
    },
    orders::{OrderError, response::OrderResponse},
    state::AppState,
};

/// Create a tenant
///
/// Its customers and their orders, keys and accounts are apart from those of all other tenants. With an `Idempotency-Key` the
/// request can be repeated safely for 24 hours.
#[utoipa::path(
    post,
    path = "/api/v1/admin/tenants",
    tag = "tenants",
    operation_id = "create_tenant",
    params(KeyHeader),
    request_body = NewTenant,
    responses(
        (status = 201, description = "Created", body = Tenant, headers(
            ("Location" = String, description = "Where the tenant is"),
            ("ETag" = String, description = "Its version, quoted"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` if this response was sent before"),
        )),
        (status = 409, description = "Another tenant has the slug (`slug_taken`)", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every error of the request with its place (`validation_failed`), or the key was used for another request (`idempotency_key_reused`)",
         body = Problem, content_type = "application/problem+json"),
        BodyErrors,
    ),
)]
pub async fn create(
    caller: Caller,
    State(state): State<AppState>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<OrderResponse, ApiError> {
    let settings = parse_new_tenant(&body, &state.db).await?;
    let claim = read_claim(&headers, caller, ("POST", ROUTE, ROUTE), &settings)?;
    let (new, claim) = (&settings, claim.as_ref());
    let insert = |mut db: DbConnection| async move {
        db::insert_tenant(&mut db, new, claim, |tenant| respond(201, tenant)).await
    };
    match state.db.write_with_retry(false, insert).await {
        Ok((TenantWrite::Written(response), _)) => {
            // Best effort: a request of the new tenant looks for it anyway.
            let _read_soon = state.tenants.reload().await;
            Ok(OrderResponse::first(response))
        }
        Ok((TenantWrite::KeyTaken, _)) => replay_or(&state, claim, OrderError::KeyInProgress.into()).await,
        Err(WriteError { error, in_doubt }) if error.violates("tenants_slug_unique") => {
            match load_created(&state, new).await?.filter(|_| in_doubt && claim.is_none()) {
                Some(created) => Ok(OrderResponse::first(respond(201, &created))),
                None => replay_or(&state, claim, slug_taken()).await,
            }
        }
        Err(WriteError { error, .. }) => Err(error.into()),
    }
}

/// Loads the tenant that an attempt has created whose outcome was unknown.
async fn load_created(state: &AppState, new: &TenantSettings) -> Result<Option<Tenant>, ApiError> {
    let load = |mut db: DbConnection| async move {
        match db::find_tenant(&mut db, &new.slug).await? {
            Some(id) => db::load_tenant(&mut db, id).await,
            None => Ok(None),
        }
    };
    let found = state.db.read_with_retry(load).await?;
    Ok(found.filter(|tenant| tenant.version == 1 && tenant.settings() == *new))
}
