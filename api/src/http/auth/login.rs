//! `POST /api/v1/auth/login`: a token pair for an address and its password.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, header},
};

use super::register::Credentials;
use crate::{
    auth::{
        Email, TokenPair, accounts,
        passwords::{self, Password},
        sessions::Origin,
    },
    http::{
        error::{ApiError, Code},
        extract::JsonBody,
        layer::Context,
    },
    limits::{Decision, Limits, Network, Policy, Quota, Subject},
    state::AppState,
};

const COUNTS: &str = "failed logins";

/// From one network, whatever the accounts.
pub const FROM_NETWORK: Policy =
    Policy { name: "login-network", counts: COUNTS, quota: Quota::new(100, 900) };
/// At one account from one network: guessing a password of eight characters takes for ever at this rate.
const AT_ACCOUNT_FROM_NETWORK: Policy =
    Policy { name: "login-account-network", counts: COUNTS, quota: Quota::new(10, 900) };
/// At one account from everywhere. Many times more, so that a stranger does not lock the owner out.
const AT_ACCOUNT: Policy = Policy { name: "login-account", counts: COUNTS, quota: Quota::new(200, 900) };

/// Log in with an address and a password.
///
/// A wrong password and an unknown address are answered alike, after the same time. Ten wrong passwords for an account
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
         body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The account is from before the identity provider was set, and its customer id may \
                                      belong to a customer of the provider",
         body = crate::http::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn login(
    State(state): State<AppState>,
    Extension(context): Extension<Arc<Context>>,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenPair>, ApiError> {
    let Credentials { email, password } = Credentials::parse(&body, Password::of_login)?;
    let attempts = Attempts { limits: &state.limits, email: &email, network: context.client.into() };
    attempts.check().await?;
    let place = state.auth.passwords.queue_login(attempts.network)?;
    let account = accounts::find(&state.db, &email).await?;
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let is_right = passwords::verify(place, password, hash).await?;
    let Some(account) = account.filter(|_| is_right) else {
        attempts.count_failure().await?;
        return Err(refused());
    };
    // Many guesses at once were all within the limit when they came. Beyond it a right one looks like a wrong one.
    attempts.check().await?;
    if !state.auth.may_use_account(account.caller.customer_id) {
        let detail = "this account is from before the identity provider was set: log in there";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let origin = Origin::Account { generation: account.generation };
    Ok(Json(state.auth.log_in(account.caller, origin, state.clock.now()).await?))
}

/// Logins to an account from a network. Only failed ones are counted, once they are known to have failed.
struct Attempts<'a> {
    limits: &'a Limits,
    email: &'a Email,
    network: Network,
}

impl Attempts<'_> {
    /// That of the network first: a network beyond it must not use up anything of an account.
    fn policies(&self) -> [(Policy, Subject<'_>); 3] {
        let email = self.email.as_str();
        [
            (FROM_NETWORK, Subject::Network(self.network)),
            (AT_ACCOUNT_FROM_NETWORK, Subject::AccountFromNetwork(email, self.network)),
            (AT_ACCOUNT, Subject::Account(email)),
        ]
    }

    /// 429 if one more failed login would be too many. Counts nothing.
    async fn check(&self) -> Result<(), ApiError> {
        let looks = self.policies().map(|(policy, subject)| self.limits.look(policy, subject));
        futures_util::future::join_all(looks).await.into_iter().try_for_each(Decision::check)
    }

    /// Counts a failed login. The first limit that is used up meanwhile makes it 429, and then the others count nothing.
    async fn count_failure(&self) -> Result<(), ApiError> {
        for (policy, subject) in self.policies() {
            self.limits.take(policy, subject).await.check()?;
        }
        Ok(())
    }
}

fn refused() -> ApiError {
    ApiError::new(Code::Unauthenticated, "the address or the password is wrong")
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="orders""#))
}
