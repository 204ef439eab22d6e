//! The tenant of a request, and how it is named in bodies.

use shared::{
    domain::tenant::TenantId,
    platform::db::{DbConnection, DbError, DbPool},
};

use crate::{
    auth::TokenError,
    db,
    http::{
        error::{ApiError, Code, FieldError},
        extract::field_code,
    },
    limits::Quota,
    tenants::{TenantError, Tenants},
};

/// Returns the quota of the tenant of a token: 401 if there is no such tenant, 403 if it is suspended.
pub(super) async fn admit_tenant(tenants: &Tenants, tenant: TenantId) -> Result<Option<Quota>, ApiError> {
    match tenants.admit(tenant).await {
        Err(TenantError::Unknown) => Err(TokenError::NoTenant.into()),
        admitted => Ok(admitted?),
    }
}

/// Fails with 401 if there is no tenant of a token, and with 403 if it is being removed. It may be suspended.
pub(super) async fn require_tenant(tenants: &Tenants, tenant: TenantId) -> Result<(), ApiError> {
    match tenants.require_present(tenant).await {
        Err(TenantError::Unknown) => Err(TokenError::NoTenant.into()),
        present => Ok(present?),
    }
}

/// Returns the tenant with a slug that a stranger has sent. PostgreSQL is asked each time, so that the time of the answer does not
/// show whether there is such a tenant.
pub(super) async fn find_tenant(pool: &DbPool, slug: &str) -> Result<Option<TenantId>, DbError> {
    pool.read_with_retry(|mut db: DbConnection| async move { db::find_tenant(&mut db, slug).await }).await
}

/// 422: the body names a tenant that does not exist.
pub(super) fn no_such_tenant() -> ApiError {
    ApiError::validation(vec![FieldError::new(
        "/tenant",
        field_code::INVALID_VALUE,
        "there is no such tenant",
    )])
}

impl From<TenantError> for ApiError {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::Unknown => Self::not_found(),
            TenantError::Suspended | TenantError::BeingRemoved => {
                Self::new(Code::TenantSuspended, error.to_string())
            }
            TenantError::Database(error) => error.as_ref().into(),
        }
    }
}
