//! A stream of server-sent events.
//!
//! The connection asks for the next piece when its client has accepted the one before, so a slow client costs one piece and its
//! place in the log.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use shared::platform::shutdown::Shutdown;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    auth::Caller,
    feed::{Feed, FeedBatch, FeedError, FeedEvent, FeedReader, OpenStream, StreamTicket, count_bytes},
    http::{error::ApiError, server::ConnectionHandle},
    state::AppState,
    tenants::Tenants,
};

/// A piece ends with the event that reaches this size.
const PIECE: usize = 32 * 1024;
/// The events that one step reads.
const STEP: usize = 1000;
/// After so many events that did not pass, the client gets a cursor to go on with.
const PROGRESS_AFTER: i64 = 5000;
/// The pause of a stream before it reads again from a database that did not answer.
const DATABASE_RETRY: Duration = Duration::from_secs(1);
/// The first piece: how many milliseconds a client waits before it connects again.
const FIRST_PIECE: &[u8] = b"retry: 2000\n\n";
/// What is sent if nothing else is.
const COMMENT: &[u8] = b": still here\n\n";

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Has nginx pass each piece on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// One open stream.
struct EventStream {
    feed: Feed,
    reader: FeedReader,
    /// What was read and not sent yet.
    batch: FeedBatch,
    sent_of_batch: usize,
    has_begun: bool,
    has_caught_up: bool,
    /// The position of the last cursor that the client got.
    told: i64,
    quiet_until: Instant,
    /// When the access token expires.
    expires: Instant,
    tenants: Tenants,
    caller: Caller,
    shutdown: Shutdown,
    open: OpenStream,
}

/// Begins a stream, if there is room for it and its first events are retained.
pub(super) async fn respond(
    state: &AppState,
    parts: &Parts,
    mut reader: FeedReader,
    access: StreamTicket,
) -> Result<Result<Response, ApiError>, FeedError> {
    let connection = parts.extensions.get::<ConnectionHandle>().cloned();
    let close = move || connection.iter().for_each(ConnectionHandle::close);
    let open = match state.feed.open_stream(access.caller, close) {
        Ok(open) => open,
        Err(error) => return Ok(Err(error.into())),
    };
    reader.read_ahead();
    let told = reader.position();
    let batch = reader.read(STEP).await?;
    let left = Duration::try_from(access.expires_at - state.clock.now()).unwrap_or_default();
    let stream = EventStream {
        feed: state.feed.clone(),
        reader,
        batch,
        sent_of_batch: 0,
        has_begun: false,
        has_caught_up: false,
        told,
        quiet_until: Instant::now(),
        expires: Instant::now() + left,
        tenants: state.tenants.clone(),
        caller: access.caller,
        shutdown: state.shutdown.clone(),
        open,
    };
    let pieces = futures_util::stream::unfold(stream, |mut stream| async move {
        let piece = stream.next_piece().await?;
        Some((Ok::<_, Infallible>(piece), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, EVENT_STREAM),
        (header::CACHE_CONTROL, NO_STORE),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok(Ok((headers, Body::from_stream(pieces)).into_response()))
}

impl EventStream {
    /// The next piece, or `None` at the end: of the process, of the token, of what can be read from here, or if the caller is shut out.
    async fn next_piece(&mut self) -> Option<Bytes> {
        self.open.accepted();
        let piece = self.find_piece().await?;
        count_bytes(piece.len());
        self.open.hand_out(self.told, self.has_caught_up);
        self.quiet_until = Instant::now() + self.feed.settings().heartbeat;
        Some(piece)
    }

    async fn find_piece(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            self.has_begun = true;
            return Some(Bytes::from_static(FIRST_PIECE));
        }
        loop {
            // A stream that always has something to send ends as soon as another.
            if self.shutdown.has_begun()
                || Instant::now() >= self.expires
                || self.caller.is_shut_out(&self.tenants)
            {
                return None;
            }
            if let Some(piece) = self.write_events() {
                return Some(piece);
            }
            self.batch.clear();
            self.sent_of_batch = 0;
            self.has_caught_up |= self.batch.is_at_tip;
            if self.reader.position() - self.told >= PROGRESS_AFTER {
                return Some(self.write_progress());
            }
            tokio::select! {
                biased;
                () = self.shutdown.begun() => return None,
                () = sleep_until(self.expires) => return None,
                _ = self.caller.shut_out(&self.tenants) => return None,
                step = read_on(&mut self.reader, &mut self.batch.is_at_tip) => {
                    // The client resumes, and learns whether it can go on.
                    self.batch = step?;
                }
                () = sleep_until(self.quiet_until) => return Some(self.write_heartbeat()),
            }
        }
    }

    /// Writes the next events of the batch, as many as a piece has.
    fn write_events(&mut self) -> Option<Bytes> {
        let rest = self.batch.events.get(self.sent_of_batch..)?;
        if self.has_caught_up {
            self.feed.record_lag(rest.first()?);
        }
        let mut piece =
            BytesMut::with_capacity(PIECE.min(rest.iter().map(|event| event.body.len() + 256).sum()));
        for event in rest {
            write_event(&mut piece, &self.reader, event);
            self.told = event.position;
            self.sent_of_batch += 1;
            if piece.len() >= PIECE {
                break;
            }
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    fn write_heartbeat(&mut self) -> Bytes {
        if self.reader.position() > self.told { self.write_progress() } else { Bytes::from_static(COMMENT) }
    }

    /// Sends the client a cursor although nothing has passed. It counts as a comment, too.
    fn write_progress(&mut self) -> Bytes {
        self.told = self.reader.position();
        let comment = String::from_utf8_lossy(COMMENT);
        Bytes::from(format!("{comment}id: {}\nevent: progress\ndata: {{}}\n\n", self.reader.cursor()))
    }
}

/// Reads on; from the end of the log, once there is something new. Waits for a database that does not answer, because an
/// `EventSource` that gets an error in place of a stream gives up. `None` if the stream cannot go on from here.
async fn read_on(reader: &mut FeedReader, is_at_tip: &mut bool) -> Option<FeedBatch> {
    if *is_at_tip {
        reader.wait().await;
        // What is new must be read also if a heartbeat comes first.
        *is_at_tip = false;
    }
    loop {
        match reader.read(STEP).await {
            Err(FeedError::Database(_)) => sleep(DATABASE_RETRY).await,
            read => return read.ok(),
        }
    }
}

fn write_event(piece: &mut BytesMut, reader: &FeedReader, event: &Arc<FeedEvent>) {
    piece.put_slice(b"id: ");
    piece.put_slice(reader.cursor_at(event.position).as_bytes());
    piece.put_slice(b"\nevent: ");
    piece.put_slice(event.event_type.as_bytes());
    piece.put_slice(b"\ndata: ");
    piece.put_slice(&event.body);
    piece.put_slice(b"\n\n");
}
