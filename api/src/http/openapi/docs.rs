//! `GET /docs`: Swagger UI from the binary, working offline.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use axum::{
    extract::Path,
    http::{HeaderName, HeaderValue, header},
    response::{Html, IntoResponse, Response},
};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use crate::http::error::ApiError;

/// Scripts come only from the binary. Swagger UI has inline styles, and icons in data URLs.
const POLICY: (HeaderName, HeaderValue) = (
    header::CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
);

/// The files change only with the binary, but their names have no version.
const CACHED: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::new(["/openapi.json"])
        .try_it_out_enabled(true)
        // A token in the browser's storage outlives the page, and every script of this origin can read it.
        .persist_authorization(false)
        .display_request_duration(true)
        .filter(true)
        // Which roles may call an operation.
        .show_extensions(true)
        // No badge of a validator on the internet.
        .validator_url("none");
    Arc::new(config)
});

/// The page.
pub(super) async fn get_page() -> impl IntoResponse {
    ([POLICY], Html(include_str!("docs.html")))
}

/// Its scripts and styles.
pub(super) async fn get_file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let file = utoipa_swagger_ui::serve(&name, Arc::clone(&CONFIG))
        .map_err(|error| ApiError::internal(error.to_string()))?
        .ok_or_else(ApiError::not_found)?;
    let kind = HeaderValue::try_from(file.content_type).map_err(ApiError::internal)?;
    // Borrowed from the binary: the bundle has 1.4 MB, and no request copies it.
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    Ok(([(header::CONTENT_TYPE, kind), CACHED, POLICY], bytes).into_response())
}
