//! Errors of the feed as problems.

use axum::http::{HeaderValue, header};

use crate::{
    feed::{Feed, FeedError, FeedScope, TicketError, TooManyStreams},
    http::error::{ApiError, Code},
};

/// How long a client waits before it opens another stream, in seconds.
const STREAM_RETRY: HeaderValue = HeaderValue::from_static("5");
/// Where a copy of all orders comes from, for a reader whose cursor has expired.
const EXPORT: &str = "/api/v1/orders/export";

/// The problem of a reader. That of an expired cursor names the oldest one, which is looked for now.
pub(super) async fn describe(error: FeedError, feed: &Feed, scope: FeedScope) -> ApiError {
    match error {
        FeedError::BadCursor => ApiError::new(Code::MalformedRequest, error.to_string()),
        FeedError::Expired { missing } => match feed.oldest_cursor(scope, missing).await {
            Ok(oldest) => ApiError::new(
                Code::CursorExpired,
                "the events after this cursor are not retained: go on from `oldest_cursor` if you can do without them, or take \
                 a copy from `export` and go on from its `feed_cursor`",
            )
            .with_fact("oldest_cursor", oldest)
            .with_fact("export", EXPORT),
            Err(error) => unavailable(&error),
        },
        error => unavailable(&error),
    }
}

fn unavailable(error: &FeedError) -> ApiError {
    match error {
        FeedError::Database(error) => ApiError::from(&**error),
        error => ApiError::unavailable(error.to_string()),
    }
}

impl From<FeedError> for ApiError {
    /// For those who have no cursor that could be wrong.
    fn from(error: FeedError) -> Self {
        unavailable(&error)
    }
}

impl From<TooManyStreams> for ApiError {
    /// 503 with `Retry-After`.
    fn from(error: TooManyStreams) -> Self {
        Self::new(Code::Unavailable, error.to_string()).with_header(header::RETRY_AFTER, STREAM_RETRY)
    }
}

impl From<TicketError> for ApiError {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::Invalid | TicketError::ForStreamsOnly => Self::new(
                Code::Unauthenticated,
                error.to_string(),
            )
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="orders""#)),
            TicketError::Redis(failure) => failure.into(),
            TicketError::Unreadable(error) => Self::internal(error),
        }
    }
}
