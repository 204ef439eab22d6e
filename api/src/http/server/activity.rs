//! What a connection is doing, so that a place can be taken from one that only waits.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

/// What a connection is doing, and since when. Its own task writes it, the one that needs a place reads it.
#[derive(Debug)]
pub(super) struct Activity {
    /// Times are counted from here.
    epoch: Instant,
    /// Milliseconds since `epoch`, times 4, plus the [`Doing`].
    state: AtomicU64,
    is_in_request: AtomicBool,
    is_blocked: AtomicBool,
    has_unread_body: AtomicBool,
    /// Whether it has waited for bytes of its client since the last request.
    has_waited: AtomicBool,
}

/// What a connection may be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It waits for a request, or for the rest of a request's head.
    Idle = 0,
    /// It waits for the rest of a body.
    Receiving = 1,
    /// It waits for its client to read answers.
    Sending = 2,
    /// It handles a request.
    Working = 3,
}

impl Activity {
    /// A new connection, which waits for its first request.
    pub(super) fn new(epoch: Instant) -> Self {
        let activity = Self {
            epoch,
            state: AtomicU64::new(Doing::Working as u64),
            is_in_request: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            has_unread_body: AtomicBool::new(false),
            has_waited: AtomicBool::new(true),
        };
        activity.begin(Doing::Idle);
        activity
    }

    /// Notes what it does from now on. Doing the same as before does not count as a beginning.
    pub(super) fn begin(&self, doing: Doing) {
        let doing = doing as u64;
        if self.state.load(Relaxed) & 3 != doing {
            let since = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
            self.state.store(since << 2 | doing, Relaxed);
        }
    }

    /// Since when it has been waiting for its client, as an order: who has waited longest comes first, and those that
    /// are in the middle of a request come last. `None` while it handles a request.
    pub(super) fn waiting(&self) -> Option<(bool, u64)> {
        let state = self.state.load(Relaxed);
        let doing = state & 3;
        (doing != Doing::Working as u64).then_some((doing != Doing::Idle as u64, state >> 2))
    }

    /// For how long it has been waiting for its client. `None` while it handles a request.
    pub(super) fn waiting_for(&self) -> Option<Duration> {
        let (_, since) = self.waiting()?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(since)))
    }

    /// For how long its client has not read what is sent. `None` if it does not wait for that.
    pub(super) fn unread_for(&self) -> Option<Duration> {
        let is_sending = self.state.load(Relaxed) & 3 == Doing::Sending as u64;
        self.waiting_for().filter(|_| is_sending)
    }

    /// A request has come.
    pub(super) fn begin_request(&self) {
        self.is_in_request.store(true, Relaxed);
        self.has_unread_body.store(false, Relaxed);
        self.begin(Doing::Working);
    }

    /// A request's answer is ready.
    pub(super) fn end_request(&self) {
        self.begin(Doing::Working);
        self.is_in_request.store(false, Relaxed);
    }

    /// The client does not accept what is sent.
    pub(super) fn block(&self) {
        self.is_blocked.store(true, Relaxed);
        self.begin(Doing::Sending);
    }

    /// The kernel has taken everything. Returns whether the client had not accepted it before.
    pub(super) fn unblock(&self) -> bool {
        if !self.is_in_request.load(Relaxed) {
            self.begin(Doing::Idle);
        }
        self.is_blocked.load(Relaxed) && self.is_blocked.swap(false, Relaxed)
    }

    /// Waits until the client has accepted every answer so far. The connection's task is woken by the stream.
    pub(super) async fn answers_sent(&self) {
        std::future::poll_fn(|_| if self.is_blocked.load(Relaxed) { Poll::Pending } else { Poll::Ready(()) })
            .await;
    }

    /// Nothing more has come from the client yet.
    pub(super) fn wait_for_bytes(&self) {
        self.has_waited.store(true, Relaxed);
    }

    /// Lets other connections go first if this request came together with the one before: a client that pipelines gets
    /// one turn for each request.
    pub(super) async fn take_turn(&self) {
        if !self.has_waited.swap(false, Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    /// A request was answered before its body had come.
    pub(super) fn leave_body_unread(&self) {
        self.has_unread_body.store(true, Relaxed);
    }

    /// Whether the last request was answered before its body had come.
    pub(super) fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn idle_connections_come_before_unfinished_requests_and_handlers_at_work_never() {
        let epoch = Instant::now();
        let [idle, receiving, working] = [Doing::Idle, Doing::Receiving, Doing::Working].map(|doing| {
            let activity = Activity::new(epoch);
            activity.begin(doing);
            activity.waiting()
        });
        assert!(idle < receiving);
        assert!(idle.is_some());
        assert_eq!(working, None);
    }

    #[tokio::test]
    async fn a_request_that_came_with_the_one_before_lets_others_go_first() {
        let activity = Activity::new(Instant::now());
        assert!(activity.take_turn().now_or_never().is_some());
        assert!(activity.take_turn().now_or_never().is_none());
        activity.wait_for_bytes();
        assert!(activity.take_turn().now_or_never().is_some());
    }

    #[test]
    fn a_connection_is_idle_only_after_its_answer_has_been_sent() {
        let activity = Activity::new(Instant::now());
        activity.begin_request();
        assert!(!activity.unblock());
        assert_eq!(activity.waiting(), None);
        activity.end_request();
        activity.block();
        assert!(activity.waiting().is_some_and(|(in_request, _)| in_request));
        assert!(activity.unblock());
        assert!(activity.waiting().is_some_and(|(in_request, _)| !in_request));
    }
}
