//! The caller of a request, from its access token.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath},
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use shared::domain::tenant::TenantId;

use super::{action_of, tenant::admit_tenant};
use crate::{
    auth::{Action, Caller, Extent, TokenError},
    http::{
        error::{ApiError, Code, FieldError},
        extract::field_code,
        layer::Context,
    },
    limits::{LimitCheck, LimitExceeded},
    state::AppState,
    tenants::TenantError,
};

/// The header by which an operator chooses the tenant in which it acts.
pub(in crate::http) const X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let token = bearer_token(&parts.headers)?;
        let caller = state.auth.verify_access(token, state.clock.now()).await?;
        admit_caller(caller, parts, state).await
    }
}

/// Lets a caller in: its own tenant is not suspended, the request is within the limits, the tenant in which it acts is there, and its
/// role has the right to the route. Returns the caller in the tenant in which it acts.
pub(in crate::http) async fn admit_caller(
    caller: Caller,
    parts: &Parts,
    state: &AppState,
) -> Result<Caller, ApiError> {
    let context = parts.extensions.get::<Arc<Context>>().map(Arc::as_ref);
    let route = parts.extensions.get::<MatchedPath>();
    let action = route.and_then(|route| action_of(&parts.method, route.as_str()));
    let acting = async {
        count_request(caller, context, state).await?;
        if action == Some(Action::ManageTenants) {
            // The tenants themselves belong to none, so the header means nothing.
            return Ok(caller);
        }
        choose_tenant(caller, &parts.headers, state).await
    };
    let acting = acting.await;
    if let Some(context) = context {
        // Also of a request that is refused.
        context.set_caller(*acting.as_ref().unwrap_or(&caller));
    }
    let acting = acting?;
    let Some(action) = action else {
        return Err(ApiError::internal(format!(
            "nobody has a right to {} {}",
            parts.method,
            parts.uri.path()
        )));
    };
    require_right(acting, action)?;
    Ok(acting)
}

/// Lets the caller's own tenant in, and counts the request. What an operator does in another tenant counts as its own.
async fn count_request(caller: Caller, context: Option<&Context>, state: &AppState) -> Result<(), ApiError> {
    let quota = admit_tenant(&state.tenants, caller.home).await?;
    record_limit(context, state.rate_limiter.count_customer(caller.home, caller.customer_id).await)?;
    // Whoever sets the quotas must be able to change one that others have used up.
    if caller.extent(Action::ManageTenants) == Extent::Nothing {
        record_limit(context, state.rate_limiter.count_tenant(caller.home, quota).await)?;
    }
    Ok(())
}

/// Returns the caller in the tenant in which it acts, which must be there. It may be suspended.
async fn choose_tenant(caller: Caller, headers: &HeaderMap, state: &AppState) -> Result<Caller, ApiError> {
    let acting = if headers.contains_key(&X_TENANT_ID) {
        require_right(caller, Action::ChooseTenant)?;
        Caller { tenant: read_tenant(headers)?, ..caller }
    } else {
        caller
    };
    if !acting.is_away() {
        return Ok(acting);
    }
    match state.tenants.require_present(acting.tenant).await {
        Err(TenantError::Unknown) => {
            let error =
                FieldError::new(X_TENANT_ID.as_str(), field_code::INVALID_VALUE, "there is no such tenant");
            Err(ApiError::validation(vec![error]))
        }
        present => Ok(present.map(|()| acting)?),
    }
}

/// Fails with 403 if the caller's role gives it no right to an action.
fn require_right(caller: Caller, action: Action) -> Result<(), ApiError> {
    if caller.extent(action) == Extent::Nothing {
        let detail = format!("the role {} may not {}", caller.role.as_str(), action.in_words());
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    Ok(())
}

/// The tenant that the header names.
fn read_tenant(headers: &HeaderMap) -> Result<TenantId, ApiError> {
    let mut values = headers.get_all(&X_TENANT_ID).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(ApiError::new(Code::MalformedRequest, "X-Tenant-Id is given more than once"));
    };
    let number = value.to_str().ok().and_then(|text| {
        let number = text.parse::<i32>().ok()?;
        // One tenant has one number: neither `+2` nor `02`.
        (number.to_string() == text).then_some(number)
    });
    number.and_then(|number| TenantId::try_from(number).ok()).ok_or_else(|| {
        ApiError::new(Code::MalformedRequest, "X-Tenant-Id must be the number of a tenant, such as 2")
    })
}

/// Keeps the result of a limit for the response, and fails if the request is beyond it.
fn record_limit(context: Option<&Context>, check: Option<LimitCheck>) -> Result<(), LimitExceeded> {
    let Some(check) = check else { return Ok(()) };
    if let Some(context) = context {
        context.add_limit(check);
    }
    check.require_allowed()
}

/// The token of the one `Authorization` header (RFC 6750, section 2.1).
pub(in crate::http) fn bearer_token(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(TokenError::Missing);
    };
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(TokenError::Missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(TokenError::Missing) }
}
