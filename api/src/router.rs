//! All routes on one screen.

use axum::Router;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{auth, health, middleware::FrameLayer, openapi, orders, state::AppState};

/// Every route that the OpenAPI document describes. `test_login` says whether `login-test` exists.
pub fn documented(test_login: bool) -> OpenApiRouter<AppState> {
    let routes = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(openapi::root::root))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::live))
        .routes(routes!(auth::register::register))
        .routes(routes!(auth::login::login))
        .routes(routes!(auth::refresh::refresh))
        .routes(routes!(auth::logout::logout))
        .routes(routes!(orders::create::create, orders::list::list))
        .routes(routes!(orders::get::get, orders::update::put, orders::update::patch, orders::delete::delete))
        .routes(routes!(orders::history::history));
    if test_login { routes.routes(routes!(auth::login_test::login_test)) } else { routes }
}

/// The whole API.
pub fn router(state: AppState) -> Router {
    let (documented, document) = documented(state.config.auth.test_login).split_for_parts();
    documented
        .route("/health", axum::routing::get(health::health))
        .merge(openapi::routes(&openapi::completed(document)))
        .layer(FrameLayer::new(state.clone()))
        .with_state(state)
}
