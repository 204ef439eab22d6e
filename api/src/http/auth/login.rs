//! `POST /api/v1/auth/login`: a token pair for an address and its password.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, header},
};

use shared::domain::tenant::TenantId;

use super::{
    credentials::Credentials,
    tenant::{admit_tenant, find_tenant},
    token_pair::TokenPair,
};
use crate::{
    auth::{
        Email, accounts,
        passwords::{self, Password},
        sessions::SessionOrigin,
    },
    http::{
        error::{ApiError, Code, Problem},
        extract::JsonBody,
        layer::Context,
    },
    limits::{LimitCheck, LimitKey, Network, Policy, Quota, RateLimiter},
    state::AppState,
};

const COUNTS: &str = "failed logins";

/// From one network, for any accounts.
pub const FROM_NETWORK: Policy =
    Policy { name: "login-network", counts: COUNTS, quota: Quota::new(100, 900) };
/// For one account from one network: guessing a password of eight characters takes for ever at this rate.
const FOR_ACCOUNT_FROM_NETWORK: Policy =
    Policy { name: "login-account-network", counts: COUNTS, quota: Quota::new(10, 900) };
/// For one account from all networks. Many times more, so that a stranger does not lock the owner out.
const FOR_ACCOUNT: Policy = Policy { name: "login-account", counts: COUNTS, quota: Quota::new(200, 900) };

/// Log in with an address and a password.
///
/// A wrong password, an unknown address and an unknown tenant get equal responses, after the same time. Ten wrong passwords for an account
/// from one network in 15 minutes, a hundred from a network for any accounts, or two hundred for an account from
/// everywhere are enough: then it is 429. A network is an IPv4 address or the /64 of an IPv6 address. Right passwords are
/// not counted.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    request_body = Credentials,
    security(()),
    responses(
        (status = 200, description = "Logged in", body = TokenPair),
        (status = 401, description = "The address or the password is wrong",
         body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The tenant is suspended (`tenant_suspended`), or the account is from before the identity provider was set, and its customer id may \
                                      belong to a customer of the provider",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn login(
    State(state): State<AppState>,
    Extension(context): Extension<Arc<Context>>,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenPair>, ApiError> {
    let Credentials { email, password, tenant } = Credentials::parse(&body, Password::for_login)?;
    let named = match &tenant {
        Some(slug) => find_tenant(&state.db, slug).await?,
        None => Some(TenantId::DEFAULT),
    };
    let attempts = LoginAttempts {
        rate_limiter: &state.rate_limiter,
        account: account_name(named, tenant.as_deref(), &email),
        network: context.client.into(),
    };
    attempts.check().await?;
    let place = state.auth.password_queues.enter_login(attempts.network)?;
    let account = accounts::find_account(&state.db, named, &email).await?;
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let is_right = passwords::verify_password(place, password, hash).await?;
    let Some(account) = account.filter(|_| is_right) else {
        attempts.count_failure().await?;
        return Err(wrong_credentials());
    };
    // Many guesses at once were all within the limit when they came. Beyond the limit a right one must look like a wrong one.
    attempts.check().await?;
    admit_tenant(&state.tenants, account.caller.home).await?;
    if !state.auth.can_use_account(account.caller.customer_id) {
        let detail = "this account is from before the identity provider was set: log in there";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let origin = SessionOrigin::Account { generation: account.generation };
    Ok(Json(state.auth.log_in(account.caller, origin, state.clock.now()).await?.into()))
}

/// The name under which attempts at an account are counted. That of an account of the default tenant is its address alone, as in
/// the version before. A tenant is named by its number, because another one can have its slug later; one that does not exist
/// counts like one that does, by the slug that was given, which is never a number.
fn account_name(tenant: Option<TenantId>, slug: Option<&str>, email: &Email) -> String {
    let email = email.as_str();
    // No address has a space in it.
    match (tenant, slug) {
        (Some(TenantId::DEFAULT), _) | (None, None) => email.to_owned(),
        (Some(tenant), _) => format!("{tenant} {email}"),
        (None, Some(slug)) => format!("{slug} {email}"),
    }
}

/// Counts failed logins to an account from a network.
struct LoginAttempts<'a> {
    rate_limiter: &'a RateLimiter,
    account: String,
    network: Network,
}

impl LoginAttempts<'_> {
    /// The network's limit first: a network beyond it must not use up the limits of an account.
    fn policies(&self) -> [(Policy, LimitKey<'_>); 3] {
        let account = self.account.as_str();
        [
            (FROM_NETWORK, LimitKey::Network(self.network)),
            (FOR_ACCOUNT_FROM_NETWORK, LimitKey::AccountFromNetwork(account, self.network)),
            (FOR_ACCOUNT, LimitKey::Account(account)),
        ]
    }

    /// Fails if one more failed login would be too many. Counts nothing.
    async fn check(&self) -> Result<(), ApiError> {
        let checks = self.policies().map(|(policy, key)| self.rate_limiter.peek(policy, key));
        let checks = futures_util::future::join_all(checks).await;
        Ok(checks.into_iter().try_for_each(LimitCheck::require_allowed)?)
    }

    /// Counts a failed login. Fails at the first limit that is used up; the limits after it do not count the login.
    async fn count_failure(&self) -> Result<(), ApiError> {
        for (policy, key) in self.policies() {
            self.rate_limiter.count(policy, key).await.require_allowed()?;
        }
        Ok(())
    }
}

fn wrong_credentials() -> ApiError {
    ApiError::new(Code::Unauthenticated, "the address or the password is wrong")
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="orders""#))
}
