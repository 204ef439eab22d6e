//! All routes on one screen, and the documents that describe them.

use std::sync::Arc;

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        auth, events,
        health::routes as health,
        layer::{RequestLayer, RequestSettings},
        openapi, orders, tenants,
    },
    state::AppState,
};

/// The whole API.
pub fn router(state: AppState) -> Router {
    let auth = &state.config.auth;
    let (routes, document) = documented_routes(auth.test_login, auth.local_accounts).split_for_parts();
    routes
        .route("/health", axum::routing::get(health::health))
        .merge(openapi::routes(&openapi::complete(document)))
        .layer(request_layer(&state))
        .with_state(state)
}

/// The OpenAPI document of a development build, with `login-test` and accounts.
pub fn document() -> OpenApi {
    openapi::complete(documented_routes(true, true).into_openapi())
}

/// Every route that the OpenAPI document describes. The settings decide whether `login-test` exists, and accounts with
/// passwords.
fn documented_routes(test_login: bool, local_accounts: bool) -> OpenApiRouter<AppState> {
    let mut routes = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(openapi::root::root))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::live))
        .routes(routes!(auth::refresh::refresh))
        .routes(routes!(auth::logout::logout))
        .routes(routes!(auth::logout_all::logout_all))
        .routes(routes!(orders::create::create, orders::list::list))
        .routes(routes!(orders::batch::batch))
        .routes(routes!(orders::import::import))
        .routes(routes!(orders::export::export))
        .routes(routes!(orders::get::get, orders::update::put, orders::update::patch, orders::delete::delete))
        .routes(routes!(orders::history::history))
        .routes(routes!(events::read::read))
        .routes(routes!(events::ticket::ticket))
        .routes(routes!(tenants::list::list, tenants::create::create))
        .routes(routes!(tenants::get::get, tenants::update::patch, tenants::delete::delete));
    if local_accounts {
        routes = routes.routes(routes!(auth::register::register)).routes(routes!(auth::login::login));
    }
    if test_login { routes.routes(routes!(auth::login_test::login_test)) } else { routes }
}

/// What stands around every handler.
pub fn request_layer(state: &AppState) -> RequestLayer {
    let http = &state.config.http;
    RequestLayer::new(RequestSettings {
        trusted_proxies: http.trusted_proxies,
        timeout: http.request_timeout,
        waiting_routes: &[(events::ROUTE, events::MAX_WAIT)],
        bodies: http.bodies,
        origins: http.origins.clone(),
        rate_limiter: Arc::clone(&state.rate_limiter),
        // A load balancer calls them often from one address, and takes a 429 for a failure.
        uncounted_routes: &health::ROUTES,
    })
}
