//! `GET /api/v1/health/live`: whether the process runs.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// One word.
#[derive(Serialize, ToSchema)]
pub struct Alive {
    /// Always `alive` or `ready`, as the route says.
    #[schema(example = "alive")]
    pub(super) status: &'static str,
}

/// Whether the process runs. A failing dependency does not matter here: a restart would not mend it.
#[utoipa::path(
    get,
    path = "/api/v1/health/live",
    tag = "health",
    security(()),
    responses((status = 200, description = "The process runs", body = Alive)),
)]
pub async fn live() -> Json<Alive> {
    Json(Alive { status: "alive" })
}
