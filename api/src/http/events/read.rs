//! `GET /api/v1/events`: a page of events, or a stream of them.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};

use super::{access::authenticate, openapi::EventPage, page, problem, query::FeedQuery, stream};
use crate::{
    feed::FeedScope,
    http::error::{ApiError, Problem},
    state::AppState,
};

/// Read events
///
/// Every change of every order, in one order that is the same for all readers: a page of it, or, with
/// `Accept: text/event-stream`, a stream of server-sent events that begins with the same events and goes on with each new one.
/// Customers see the events of their own orders, other roles those of their tenant.
///
/// `next` of a page, and the `id` of a server-sent event, is the cursor to go on with. A page without events has one, too. An
/// event comes once in a pass from cursor to cursor; after an interruption go on with the last cursor you have dealt with.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    operation_id = "read_events",
    params(
        FeedQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The cursor to go on with, as an `EventSource` sends it, which wins over `after`",
         nullable = false, pattern = "^([A-Za-z0-9_-]{39})?$"),
    ),
    responses(
        (status = 200, description = "The page, or the stream", content((EventPage = "application/json"), (String = "text/event-stream"))),
        (status = 400, description = "The cursor was not given out for the caller's feed, a token is in the URL, or `X-Tenant-Id` is given with a ticket", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The events after the cursor are not retained: `oldest_cursor` is the first that can be used, `export` has a copy of all orders", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every error of the query", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn read(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let for_stream = accepts_stream(&parts.headers);
    let (mut query, access) = authenticate(&mut parts, &state, for_stream).await?;
    query.resume_after_last_event(&parts.headers)?;
    let scope = FeedScope::from(access.caller);
    let respond = async {
        let reader = state.feed.open(query.start(), scope, query.filter()).await?;
        if for_stream {
            stream::respond(&state, &parts, reader, access).await
        } else {
            Ok(Ok(page::respond(&state, reader, access.caller, query.limit, query.wait).await?))
        }
    };
    match respond.await {
        Ok(response) => response,
        Err(error) => Err(problem::describe(error, &state.feed, scope).await),
    }
}

/// Whether the client asks for server-sent events.
fn accepts_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';');
        let is_stream =
            parts.next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"));
        is_stream && !parts.any(is_weight_zero)
    })
}

/// Whether a parameter of `Accept` says that the client does not take this.
fn is_weight_zero(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, weight)| {
        name.trim().eq_ignore_ascii_case("q")
            && weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0)
    })
}
