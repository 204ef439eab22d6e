//! A request's body as it arrives from the client.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::activity::{Activity, ConnectionState};

/// Records while the connection waits for the client, and whether the body was read to its end.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Incoming,
    activity: Arc<Activity>,
    has_ended: bool,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, activity: &Arc<Activity>) -> Self {
        Self { inner, activity: Arc::clone(activity), has_ended: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.activity.set_state(if polled.is_pending() {
            ConnectionState::ReceivingBody
        } else {
            ConnectionState::Handling
        });
        let frame = ready!(polled);
        self.has_ended = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.has_ended && !self.inner.is_end_stream() {
            self.activity.leave_body_unread();
        }
    }
}
