//! What a connection is doing, so that a connection that only waits can be closed to make room.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

/// What a connection is doing, and since when. Its own task writes it; the server reads it to make room.
#[derive(Debug)]
pub(super) struct Activity {
    /// The start of the times below.
    epoch: Instant,
    /// Milliseconds since `epoch`, times 4, plus the [`ConnectionState`].
    state: AtomicU64,
    is_in_request: AtomicBool,
    /// Whether a response goes on until something ends it.
    is_streaming: AtomicBool,
    is_blocked: AtomicBool,
    has_unread_body: AtomicBool,
    /// Whether it has waited for bytes of its client since the last request.
    has_waited: AtomicBool,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// It waits for a request, or for the rest of a request's head.
    Idle = 0,
    /// It waits for the rest of a body.
    ReceivingBody = 1,
    /// It waits for its client to read responses.
    SendingResponse = 2,
    /// It handles a request.
    Handling = 3,
}

impl Activity {
    /// A new connection, which waits for its first request.
    pub(super) fn new(epoch: Instant) -> Self {
        let activity = Self {
            epoch,
            state: AtomicU64::new(ConnectionState::Handling as u64),
            is_in_request: AtomicBool::new(false),
            is_streaming: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            has_unread_body: AtomicBool::new(false),
            has_waited: AtomicBool::new(true),
        };
        activity.set_state(ConnectionState::Idle);
        activity
    }

    /// Records the state and its beginning, unless the state is the same as before.
    pub(super) fn set_state(&self, state: ConnectionState) {
        let state = state as u64;
        if self.state.load(Relaxed) & 3 != state {
            let since = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
            self.state.store(since << 2 | state, Relaxed);
        }
    }

    /// Since when it has waited for its client, as a rank: the longest waiting comes first, and connections in the middle of
    /// a request come last. Returns `None` while it handles a request.
    pub(super) fn waiting_rank(&self) -> Option<(bool, u64)> {
        let state = self.state.load(Relaxed);
        let current = state & 3;
        (current != ConnectionState::Handling as u64)
            .then_some((current != ConnectionState::Idle as u64, state >> 2))
    }

    /// How long it has waited for its client. Returns `None` while it handles a request.
    pub(super) fn waiting_for(&self) -> Option<Duration> {
        let (_, since) = self.waiting_rank()?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(since)))
    }

    /// How long its client has not read what is sent. Returns `None` if it does not wait for that.
    pub(super) fn unread_for(&self) -> Option<Duration> {
        let is_sending = self.state.load(Relaxed) & 3 == ConnectionState::SendingResponse as u64;
        self.waiting_for().filter(|_| is_sending)
    }

    /// A request has arrived.
    pub(super) fn begin_request(&self) {
        self.is_in_request.store(true, Relaxed);
        self.has_unread_body.store(false, Relaxed);
        self.set_state(ConnectionState::Handling);
    }

    /// A request's response is ready.
    pub(super) fn end_request(&self) {
        self.set_state(ConnectionState::Handling);
        self.is_in_request.store(false, Relaxed);
    }

    /// A response begins, or ends, that goes on until something ends it. Between its pieces the connection is not idle.
    pub(super) fn set_streaming(&self, is_streaming: bool) {
        self.is_streaming.store(is_streaming, Relaxed);
    }

    /// The client does not read what is sent.
    pub(super) fn block(&self) {
        self.is_blocked.store(true, Relaxed);
        self.set_state(ConnectionState::SendingResponse);
    }

    /// The kernel has accepted everything. Returns whether it had not accepted everything before.
    pub(super) fn unblock(&self) -> bool {
        if self.is_streaming.load(Relaxed) {
            self.set_state(ConnectionState::Handling);
        } else if !self.is_in_request.load(Relaxed) {
            self.set_state(ConnectionState::Idle);
        }
        self.is_blocked.load(Relaxed) && self.is_blocked.swap(false, Relaxed)
    }

    /// Waits until the client has accepted every response so far. The stream wakes the connection's task.
    pub(super) async fn responses_sent(&self) {
        std::future::poll_fn(|_| if self.is_blocked.load(Relaxed) { Poll::Pending } else { Poll::Ready(()) })
            .await;
    }

    /// Nothing more has arrived from the client.
    pub(super) fn wait_for_bytes(&self) {
        self.has_waited.store(true, Relaxed);
    }

    /// Lets other connections go first if this request came together with the one before: a client that pipelines waits for
    /// its turn for each request.
    pub(super) async fn take_turn(&self) {
        if !self.has_waited.swap(false, Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    /// A response was made before the request's body had arrived.
    pub(super) fn leave_body_unread(&self) {
        self.has_unread_body.store(true, Relaxed);
    }

    /// Whether the last response was made before the request's body had arrived.
    pub(super) fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn idle_connections_are_closed_before_unfinished_requests_and_running_handlers_are_not() {
        let epoch = Instant::now();
        let [idle, receiving, working] =
            [ConnectionState::Idle, ConnectionState::ReceivingBody, ConnectionState::Handling].map(|state| {
                let activity = Activity::new(epoch);
                activity.set_state(state);
                activity.waiting_rank()
            });
        assert!(idle < receiving);
        assert!(idle.is_some());
        assert_eq!(working, None);
    }

    #[tokio::test]
    async fn a_request_that_arrived_with_the_one_before_lets_others_go_first() {
        let activity = Activity::new(Instant::now());
        assert!(activity.take_turn().now_or_never().is_some());
        assert!(activity.take_turn().now_or_never().is_none());
        activity.wait_for_bytes();
        assert!(activity.take_turn().now_or_never().is_some());
    }

    #[test]
    fn a_connection_is_not_idle_between_the_pieces_of_a_stream() {
        let activity = Activity::new(Instant::now());
        activity.begin_request();
        activity.set_streaming(true);
        activity.end_request();
        activity.block();
        assert!(activity.waiting_rank().is_some());
        assert!(activity.unblock());
        assert_eq!(activity.waiting_rank(), None);
        activity.set_streaming(false);
        activity.unblock();
        assert!(activity.waiting_rank().is_some_and(|(in_request, _)| !in_request));
    }

    #[test]
    fn a_connection_is_idle_only_after_its_response_has_been_sent() {
        let activity = Activity::new(Instant::now());
        activity.begin_request();
        assert!(!activity.unblock());
        assert_eq!(activity.waiting_rank(), None);
        activity.end_request();
        activity.block();
        assert!(activity.waiting_rank().is_some_and(|(in_request, _)| in_request));
        assert!(activity.unblock());
        assert!(activity.waiting_rank().is_some_and(|(in_request, _)| !in_request));
    }
}
