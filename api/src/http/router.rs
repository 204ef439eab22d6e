//! All routes on one screen.

use axum::Router;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{auth, health, layer::RequestLayer, openapi, orders},
    state::AppState,
};

/// Every route that the OpenAPI document describes. Whether `login-test` exists, and accounts with passwords, is a matter
/// of the settings.
pub fn documented(test_login: bool, local_accounts: bool) -> OpenApiRouter<AppState> {
    let mut routes = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(openapi::root::root))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::live))
        .routes(routes!(auth::refresh::refresh))
        .routes(routes!(auth::logout::logout))
        .routes(routes!(auth::logout_all::logout_all))
        .routes(routes!(orders::create::create, orders::list::list))
        .routes(routes!(orders::get::get, orders::update::put, orders::update::patch, orders::delete::delete))
        .routes(routes!(orders::history::history));
    if local_accounts {
        routes = routes.routes(routes!(auth::register::register)).routes(routes!(auth::login::login));
    }
    if test_login { routes.routes(routes!(auth::login_test::login_test)) } else { routes }
}

/// The whole API.
pub fn router(state: AppState) -> Router {
    let auth = &state.config.auth;
    let (documented, document) = documented(auth.test_login, auth.local_accounts).split_for_parts();
    documented
        .route("/health", axum::routing::get(health::health))
        .merge(openapi::routes(&openapi::completed(document)))
        .layer(RequestLayer::new(state.clone()))
        .with_state(state)
}
