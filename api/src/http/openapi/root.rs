//! `GET /`: where to go from here.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// Where to go from here.
#[derive(Serialize, ToSchema)]
pub struct Root {
    /// What this is.
    message: &'static str,
    /// The version of this build.
    version: &'static str,
    /// The documentation.
    #[schema(example = "/docs")]
    docs: &'static str,
    /// The state of the service.
    #[schema(example = "/health")]
    health: &'static str,
}

/// Where to go from here.
#[utoipa::path(
    get,
    path = "/",
    tag = "health",
    security(()),
    responses((status = 200, description = "The way to the documentation", body = Root)),
)]
pub async fn root() -> Json<Root> {
    Json(Root {
        message: "Order management API",
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs",
        health: "/health",
    })
}
