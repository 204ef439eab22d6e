//! The OpenAPI document: generated from the types and routes, completed with what every operation has in common.

pub mod root;

use axum::{Json, Router, routing::get};
use utoipa::{
    OpenApi as _,
    openapi::{
        OpenApi,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{router, state::AppState};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Orders", description = "Event-driven order management."),
    tags(
        (name = "orders", description = "Orders, their changes and their history"),
        (name = "auth", description = "Tokens and accounts"),
        (name = "health", description = "The state of the service"),
    ),
    security(("bearer" = [])),
)]
struct Base;

/// What the document says before any route is added.
pub fn base() -> OpenApi {
    let mut document = Base::openapi();
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("An access token, as a login or a refresh answers it."))
        .build();
    components.security_schemes.insert("bearer".to_owned(), SecurityScheme::Http(bearer).into());
    document
}

/// Adds what every operation has in common.
pub fn completed(document: OpenApi) -> OpenApi {
    document
}

/// The document of a development build, with `login-test`.
pub fn document() -> OpenApi {
    completed(router::documented(true).into_openapi())
}

/// The routes that serve the documents.
pub fn routes(document: OpenApi) -> Router<AppState> {
    Router::new().route("/openapi.json", get(move || async move { Json(document) }))
}
