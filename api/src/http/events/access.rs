//! Who reads: by a token in a header, or by a ticket in the URL.

use axum::{
    extract::FromRequestParts as _,
    http::{header, request::Parts},
};

use super::query::FeedQuery;
use crate::{
    auth::Caller,
    feed::{StreamTicket, TicketError},
    http::{
        auth::{X_TENANT_ID, admit_caller, bearer_token},
        error::{ApiError, Code},
        extract::Query,
    },
    state::AppState,
};

/// Parameters in which clients of other services send tokens.
const TOKEN_PARAMETERS: [&str; 4] = ["access_token", "token", "authorization", "bearer"];

/// Returns what the caller asks for, and who it is until when.
pub(super) async fn authenticate(
    parts: &mut Parts,
    state: &AppState,
    for_stream: bool,
) -> Result<(FeedQuery, StreamTicket), ApiError> {
    let query = parts.uri.query().map(str::to_owned);
    let query = query.as_deref();
    let has_header = parts.headers.contains_key(header::AUTHORIZATION);
    if Query::parse(query).has("ticket") && !has_header {
        reject_token_in_url(query)?;
        // Read first: a wrong query does not use the ticket up.
        let query = FeedQuery::parse(query, for_stream)?;
        if !for_stream {
            return Err(TicketError::ForStreamsOnly.into());
        }
        if parts.headers.contains_key(X_TENANT_ID) {
            let detail =
                "a ticket opens the feed of the tenant for which it was issued: leave X-Tenant-Id out";
            return Err(ApiError::new(Code::MalformedRequest, detail));
        }
        let ticket = query.ticket.as_deref().unwrap_or_default();
        let access = state.feed.redeem_ticket(ticket).await?;
        let caller = admit_caller(access.caller, parts, state).await?;
        return Ok((query, StreamTicket { caller, ..access }));
    }
    if !has_header {
        reject_token_in_url(query)?;
    }
    let access = bearer_access(parts, state).await?;
    reject_token_in_url(query)?;
    let query = FeedQuery::parse(query, for_stream)?;
    if query.ticket.is_some() {
        let detail = "a request has a token in its Authorization header or a ticket in its URL, not both";
        return Err(ApiError::new(Code::MalformedRequest, detail));
    }
    Ok((query, access))
}

/// The caller of the token in the header, and when the token expires.
pub(super) async fn bearer_access(parts: &mut Parts, state: &AppState) -> Result<StreamTicket, ApiError> {
    let caller = Caller::from_request_parts(parts, state).await?;
    let expires_at = state.auth.expiry_of_verified(bearer_token(&parts.headers)?)?;
    Ok(StreamTicket { caller, expires_at })
}

/// Refuses an access token in the URL, which proxies, logs and histories keep for longer than the token lives.
fn reject_token_in_url(query: Option<&str>) -> Result<(), ApiError> {
    let mut parameters = Query::parse(query);
    let mut errors = crate::http::extract::FieldErrors::new();
    let is_token = |text: &str| text.bytes().filter(|byte| *byte == b'.').count() == 2;
    let ticket = parameters.optional("ticket", |text| Ok(is_token(text)), &mut errors);
    if ticket == Some(true) || TOKEN_PARAMETERS.iter().any(|name| parameters.has(name)) {
        let detail = "an access token must not be in a URL, where logs keep it: send it in the Authorization header, or get a \
                      ticket from POST /api/v1/events/tickets";
        return Err(ApiError::new(Code::MalformedRequest, detail));
    }
    Ok(())
}
