//! `POST /api/v1/events/tickets`: a ticket for one stream.

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::bearer_access;
use crate::{
    feed::TICKET_LIFETIME,
    http::{
        error::{ApiError, Problem},
        extract::Query,
    },
    state::AppState,
};

/// A ticket.
#[derive(Serialize, ToSchema)]
pub struct Ticket {
    /// The value of the parameter `ticket` of `GET /api/v1/events`.
    ticket: String,
    /// Within how many seconds it must be used.
    #[schema(minimum = 1)]
    expires_in: u64,
}

/// Get a ticket for a stream
///
/// The `EventSource` of a browser cannot send a token. Its URL carries a ticket instead, which opens one stream, once, within
/// 60 s, on any replica, in the tenant in which the caller acts now. The stream ends when the token expires that the ticket was got
/// with; the next one needs a new ticket.
#[utoipa::path(
    post,
    path = "/api/v1/events/tickets",
    tag = "events",
    operation_id = "create_event_ticket",
    responses(
        (status = 201, description = "The ticket", body = Ticket),
        (status = 422, description = "The query has parameters", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn ticket(
    State(state): State<AppState>,
    request: Request,
) -> Result<(StatusCode, Json<Ticket>), ApiError> {
    let (mut parts, _) = request.into_parts();
    let access = bearer_access(&mut parts, &state).await?;
    Query::reject_all(parts.uri.query())?;
    let ticket = state.feed.issue_ticket(access).await?;
    Ok((StatusCode::CREATED, Json(Ticket { ticket, expires_in: TICKET_LIFETIME.as_secs() })))
}
