//! A page of events, after a long poll if there is none yet.

use std::time::Duration;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use tokio::time::Instant;

use crate::{
    auth::Caller,
    feed::{FeedError, FeedEvent, FeedReader, count_bytes},
    state::AppState,
};

/// The events that one request looks at, so that a filter that lets little pass does not read the whole log.
const MAX_SCANNED: i64 = 20_000;
/// A page ends with the event that reaches this size.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Reads a page of at most `limit` events. If there is none yet, waits so long for the first.
pub(super) async fn respond(
    state: &AppState,
    mut reader: FeedReader,
    caller: Caller,
    limit: usize,
    wait: Duration,
) -> Result<Response, FeedError> {
    let deadline = Instant::now() + wait;
    let mut page = PageText::new();
    let begin = reader.position();
    let has_more = loop {
        let batch = reader.read(limit - page.events).await?;
        for (number, event) in batch.events.iter().enumerate() {
            page.push(&reader, event);
            if page.text.len() >= MAX_BYTES && number + 1 < batch.events.len() {
                return Ok(page.finish(&reader.cursor_at(event.position), true));
            }
        }
        if page.events >= limit || page.text.len() >= MAX_BYTES {
            break !batch.is_at_tip;
        }
        if !batch.is_at_tip {
            if reader.position() - begin >= MAX_SCANNED {
                break true;
            }
            continue;
        }
        if page.events > 0
            || Instant::now() >= deadline
            || state.shutdown.has_begun()
            || caller.is_shut_out(&state.tenants)
        {
            break false;
        }
        tokio::select! {
            () = reader.wait() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = state.shutdown.begun() => {}
            // Its next request is refused.
            _ = caller.shut_out(&state.tenants) => {}
        }
    };
    Ok(page.finish(&reader.cursor(), has_more))
}

/// The JSON of an [`EventPage`](super::openapi::EventPage), into which each event is copied as it is.
struct PageText {
    text: Vec<u8>,
    events: usize,
    event_bytes: usize,
}

impl PageText {
    fn new() -> Self {
        Self { text: br#"{"events":["#.to_vec(), events: 0, event_bytes: 0 }
    }

    fn push(&mut self, reader: &FeedReader, event: &FeedEvent) {
        if self.events > 0 {
            self.text.push(b',');
        }
        self.text.extend_from_slice(br#"{"cursor":""#);
        self.text.extend_from_slice(reader.cursor_at(event.position).as_bytes());
        self.text.extend_from_slice(br#"","event":"#);
        self.text.extend_from_slice(&event.body);
        self.text.push(b'}');
        self.events += 1;
        self.event_bytes += event.body.len();
    }

    fn finish(mut self, next: &str, has_more: bool) -> Response {
        let rest = format!(r#"],"next":"{next}","has_more":{has_more}}}"#);
        self.text.extend_from_slice(rest.as_bytes());
        count_bytes(self.event_bytes);
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.text).into_response()
    }
}
