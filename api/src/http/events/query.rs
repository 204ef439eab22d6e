//! What a reader of the feed asks for.

use std::time::Duration;

use axum::http::HeaderMap;
use shared::domain::{event::EventType, order::OrderId};
use utoipa::IntoParams;

use super::MAX_WAIT;
use crate::{
    feed::{EventFilter, FeedStart},
    http::{
        error::{ApiError, Code, FieldError},
        extract::{FieldErrors, Query, field_code},
    },
};

/// Events of a page, unless asked for otherwise, and at most.
const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 1000;
/// The longest wait, in seconds.
const MAX_WAIT_SECONDS: i64 = MAX_WAIT.as_secs().cast_signed();
/// Sent by an `EventSource` that connects again.
const LAST_EVENT_ID: &str = "last-event-id";

/// Which events, from where on, and how many.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FeedQuery {
    /// Where to begin: a cursor, `start` for the oldest event that is retained, or `now` for what comes after the newest.
    #[param(value_type = Option<String>, nullable = false, default = "start", pattern = "^(start|now|[A-Za-z0-9_-]{39})$")]
    after: After,
    /// Events of a page. Not for a stream.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: usize,
    /// Only events of these types, separated by commas: `OrderCreated`, `OrderUpdated`, `OrderDeleted`.
    #[param(value_type = Option<String>, nullable = false, example = "OrderCreated,OrderDeleted",
            pattern = "^Order(Created|Updated|Deleted)(,Order(Created|Updated|Deleted))*$")]
    types: Vec<EventType>,
    /// Only events of this order.
    #[param(nullable = false)]
    order_id: Option<OrderId>,
    /// If there is no event yet, wait so many seconds for one. Not for a stream.
    #[param(value_type = i64, required = false, minimum = 0, maximum = 30, default = 0)]
    pub(super) wait: Duration,
    /// In place of a token, what `POST /api/v1/events/tickets` returned: for the `EventSource` of a browser.
    #[param(nullable = false)]
    pub(super) ticket: Option<String>,
}

#[derive(Debug)]
enum After {
    Start,
    Now,
    Cursor(String),
}

impl FeedQuery {
    /// Reads the query. A stream has neither `limit` nor `wait`.
    pub(super) fn parse(query: Option<&str>, for_stream: bool) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut query = Query::parse(query);
        if for_stream {
            for name in ["limit", "wait"].into_iter().filter(|name| query.has(name)) {
                let detail = "is for pages: a stream sends each event as soon as it can";
                errors.push(FieldError::new(format!("?{name}"), field_code::INVALID_VALUE, detail));
            }
        }
        let after = query.optional("after", |text| Ok(parse_after(text)), &mut errors);
        let limit = query.integer("limit", 1..=MAX_LIMIT, &mut errors).unwrap_or(DEFAULT_LIMIT);
        let wait = query.integer("wait", 0..=MAX_WAIT_SECONDS, &mut errors).unwrap_or(0);
        let parsed = Self {
            after: after.unwrap_or(After::Start),
            limit: usize::try_from(limit).unwrap_or(1),
            types: query.optional("types", parse_types, &mut errors).unwrap_or_default(),
            order_id: query.integer("order_id", 1..=i64::MAX, &mut errors).and_then(|id| id.try_into().ok()),
            wait: Duration::from_secs(wait.unsigned_abs()),
            ticket: query.optional("ticket", |text| Ok(text.to_owned()), &mut errors),
        };
        query.reject_unknown(&mut errors);
        errors.into_result(|| Some(parsed))
    }

    /// Goes on where a client says that it was cut off, whatever its URL says.
    pub(super) fn resume_after_last_event(&mut self, headers: &HeaderMap) -> Result<(), ApiError> {
        if let Some(last) = headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty()) {
            let last = last.to_str().map_err(|_| {
                ApiError::new(Code::MalformedRequest, "Last-Event-ID must be the id of an event of this feed")
            })?;
            self.after = After::Cursor(last.to_owned());
        }
        Ok(())
    }

    /// Where to begin.
    pub(super) fn start(&self) -> FeedStart<'_> {
        match &self.after {
            After::Start => FeedStart::Start,
            After::Now => FeedStart::Now,
            After::Cursor(text) => FeedStart::Cursor(text),
        }
    }

    /// Which events.
    pub(super) fn filter(&self) -> EventFilter {
        EventFilter { types: self.types.clone(), order_id: self.order_id }
    }
}

fn parse_after(text: &str) -> After {
    match text {
        "start" => After::Start,
        "now" => After::Now,
        cursor => After::Cursor(cursor.to_owned()),
    }
}

fn parse_types(text: &str) -> Result<Vec<EventType>, (&'static str, String)> {
    let parse = |name: &str| {
        EventType::ALL.into_iter().find(|known| known.as_str() == name).ok_or_else(|| {
            let known = EventType::ALL.map(EventType::as_str).join(", ");
            (field_code::INVALID_VALUE, format!("must be types separated by commas, of {known}"))
        })
    };
    text.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_parameters_a_reader_begins_at_the_start() {
        let query = FeedQuery::parse(None, false).expect("no error");
        assert_eq!((query.start(), query.limit, query.wait), (FeedStart::Start, 100, Duration::ZERO));
        assert_eq!(query.filter(), EventFilter::default());
    }

    #[test]
    fn an_empty_last_event_id_changes_nothing_and_another_one_wins() {
        let mut query = FeedQuery::parse(Some("after=now"), true).expect("no error");
        let mut headers = HeaderMap::new();
        headers.insert(LAST_EVENT_ID, "".parse().unwrap());
        assert!(query.resume_after_last_event(&headers).is_ok());
        assert_eq!(query.start(), FeedStart::Now);
        headers.insert(LAST_EVENT_ID, "x".parse().unwrap());
        assert!(query.resume_after_last_event(&headers).is_ok());
        assert_eq!(query.start(), FeedStart::Cursor("x"));
    }
}
