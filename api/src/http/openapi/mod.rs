//! The OpenAPI document: what no single endpoint says. The router collects the endpoints, which describe themselves.
//!
//! Also `/docs`, `/asyncapi.json` and `/`.

pub mod asyncapi;
mod common;
mod docs;
pub mod root;

use axum::{
    Router,
    http::{HeaderValue, header},
    routing::get,
};
use bytes::Bytes;
use utoipa::{
    OpenApi as _,
    openapi::{
        OpenApi, RefOr, Required,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::http::error::{FieldError, Problem};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Order management API", description = include_str!("description.md")),
    components(schemas(Problem, FieldError)),
    tags(
        (name = "orders", description = "Orders, their changes and their history"),
        (name = "events", description = "Every change of the orders, in one order for all readers"),
        (name = "auth", description = "Tokens and accounts"),
        (name = "tenants", description = "The shops that share this installation; for operators"),
        (name = "health", description = "The state of the service"),
    ),
    security(("bearer" = [])),
)]
struct Base;

/// The document before any route is added.
pub fn base() -> OpenApi {
    let mut document = Base::openapi();
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("An access token, as a login or a refresh returns it."))
        .build();
    components.security_schemes.insert("bearer".to_owned(), SecurityScheme::Http(bearer).into());
    document
}

/// Adds what all operations have in common, and what an endpoint cannot say of itself.
pub fn complete(mut document: OpenApi) -> OpenApi {
    let logout_all = document.paths.paths.get_mut("/api/v1/auth/logout-all");
    if let Some(RefOr::T(body)) = logout_all.and_then(|item| item.post.as_mut()?.request_body.as_mut()) {
        body.required = Some(Required::False);
    }
    common::add_common_parts(document)
}

/// The routes that serve the documents.
pub fn routes<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    // Serialised once: the document is the same for everyone.
    let document = Bytes::from(document.to_json().unwrap_or_default());
    let events = Bytes::from(asyncapi::document().to_string());
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Router::new()
        .route(
            "/openapi.json",
            get({
                let json = json.clone();
                move || async move { (json, document) }
            }),
        )
        .route("/asyncapi.json", get(move || async move { (json, events) }))
        .route("/docs", get(docs::get_page))
        .route("/docs/", get(docs::get_page))
        .route("/docs/{file}", get(docs::get_file))
}
