//! `GET /`: what this service is, and where its documentation is.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// What this service is, and where its documentation is.
#[derive(Serialize, ToSchema)]
pub struct ServiceInfo {
    /// The name of the API.
    message: &'static str,
    /// The version of this build.
    version: &'static str,
    /// The path of the documentation.
    #[schema(example = "/docs")]
    docs: &'static str,
    /// The path of the health report.
    #[schema(example = "/health")]
    health: &'static str,
}

/// The name and version of the API, and the paths of its documentation and health.
#[utoipa::path(
    get,
    path = "/",
    tag = "health",
    security(()),
    responses((status = 200, description = "The service", body = ServiceInfo)),
)]
pub async fn root() -> Json<ServiceInfo> {
    Json(ServiceInfo {
        message: "Order management API",
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs",
        health: "/health",
    })
}
