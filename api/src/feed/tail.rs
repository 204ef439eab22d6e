//! The end of the log, read by one task for all readers of this process.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use shared::platform::{
    db::{DbConnection, DbPool},
    shutdown::Shutdown,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{cursor::LogPlace, error::FeedError, event::FeedEvent, ring::Ring, settings::FeedSettings};
use crate::db::{self, LogEra, LogPage, LogRow, LogSpan, LogTip};

/// The events that one statement reads.
const PAGE: i32 = 1000;
/// The bytes after which it reads no more.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The pause after a failed read.
const BACKOFF: Duration = Duration::from_millis(500);
/// Stands for the time before the first event got a position. Keys of eras are not negative.
const BEFORE_FIRST_ERA: i32 = -1;

/// The end of the log as it was last read.
pub(super) struct Tail {
    db: DbPool,
    state: Mutex<TailState>,
    last_poll: tokio::sync::Mutex<LastPoll>,
    /// Reports that there is something new to read.
    news: watch::Sender<()>,
    waiting: AtomicUsize,
    first_waits: Notify,
}

struct TailState {
    /// `None` until the log was read for the first time.
    era: Option<i32>,
    eras: Vec<LogEra>,
    retained_after: i64,
    recent: Ring,
    max_events: i64,
}

#[derive(Default)]
struct LastPoll {
    /// When the last successful one began.
    began: Option<Instant>,
    /// When the last one failed, if it did, and why.
    failed: Option<(Instant, FeedError)>,
}

/// Events from memory.
pub(super) struct RecentEvents {
    pub(super) events: Vec<Arc<FeedEvent>>,
    /// Whether the place is the end of the log now.
    pub(super) is_at_tip: bool,
}

/// Where the log ends, and where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogEnds {
    pub(super) era: i32,
    pub(super) head: i64,
    pub(super) retained_after: i64,
}

impl Tail {
    pub(super) fn new(db: DbPool, settings: &FeedSettings) -> Self {
        let state = TailState {
            era: None,
            eras: Vec::new(),
            retained_after: 0,
            recent: Ring::empty(0, settings.recent_events, settings.recent_bytes),
            max_events: i64::try_from(settings.recent_events).unwrap_or(i64::MAX),
        };
        Self {
            db,
            state: Mutex::new(state),
            last_poll: tokio::sync::Mutex::default(),
            news: watch::Sender::new(()),
            waiting: AtomicUsize::new(0),
            first_waits: Notify::new(),
        }
    }

    /// Reads the end of the log every `poll` while somebody waits for it, and at once when `sequenced` changes.
    pub(super) async fn run(
        &self,
        poll: Duration,
        mut sequenced: watch::Receiver<Instant>,
        shutdown: &Shutdown,
    ) {
        let mut was_failing = false;
        loop {
            let begun = Instant::now();
            let pause = if self.waiting.load(Relaxed) == 0 {
                tokio::select! {
                    () = self.first_waits.notified() => {}
                    () = shutdown.begun() => return,
                }
                Duration::ZERO
            } else if let Err(error) = self.refresh().await {
                if !was_failing {
                    tracing::warn!(error = %error, "the end of the log cannot be read; it is tried again");
                }
                was_failing = true;
                BACKOFF
            } else {
                was_failing = false;
                poll.saturating_sub(begun.elapsed())
            };
            let sequenced = async {
                if was_failing || sequenced.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = sequenced => {}
                () = shutdown.begun() => return,
            }
        }
    }

    /// Reads the end of the log. Callers who wait for the same read share it.
    pub(super) async fn refresh(&self) -> Result<LogEnds, FeedError> {
        let asked = Instant::now();
        let mut last = self.last_poll.lock().await;
        if let Some((at, error)) = &last.failed
            && *at > asked
        {
            return Err(error.clone());
        }
        if last.began.is_none_or(|began| began < asked) {
            let began = Instant::now();
            match self.poll().await {
                Ok(()) => *last = LastPoll { began: Some(began), failed: None },
                Err(error) => {
                    last.failed = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
            }
        }
        Ok(self.lock().ends())
    }

    /// Counts a reader that waits for news, as long as what it returns lives.
    pub(super) fn watch(self: &Arc<Self>) -> TailWatch {
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.first_waits.notify_one();
        }
        TailWatch { tail: Arc::clone(self), news: self.news.subscribe() }
    }

    /// The last position that it has seen.
    pub(super) fn head(&self) -> i64 {
        self.lock().recent.head()
    }

    /// How many readers wait for news.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// The same place in the current era, if a reader can go on after it.
    pub(super) fn find(&self, place: LogPlace) -> Result<LogPlace, FeedError> {
        let state = self.lock();
        let found = state.in_current_era(place).filter(|place| place.position >= state.retained_after);
        found.ok_or(FeedError::Expired { missing: None })
    }

    /// Moves a place into the current era, and returns the events after it that `admits` lets pass, at most `most`; `None` if it
    /// is too far back. Fails if the log has gone on differently since.
    pub(super) fn recent(
        &self,
        place: &mut LogPlace,
        most: usize,
        admits: impl Fn(&FeedEvent) -> bool,
    ) -> Result<Option<RecentEvents>, FeedError> {
        let state = self.lock();
        *place = state.in_current_era(*place).ok_or(FeedError::Replaced)?;
        let head = state.recent.head();
        let Some(recent) = state.recent.after(place.position) else { return Ok(None) };
        let mut events = Vec::new();
        for event in recent {
            if events.len() == most {
                break;
            }
            place.position = event.position;
            if admits(event) {
                events.push(Arc::clone(event));
            }
        }
        Ok(Some(RecentEvents { events, is_at_tip: place.position == head }))
    }

    /// The bytes of the log after a position.
    pub(super) fn bytes_after(&self, position: i64) -> usize {
        self.lock().recent.bytes_after(position)
    }

    async fn poll(&self) -> Result<(), FeedError> {
        loop {
            let (after, most) = {
                let state = self.lock();
                if state.era.is_some() { (state.recent.head(), PAGE) } else { (0, 0) }
            };
            let span = LogSpan { after, most, bytes: PAGE_BYTES };
            let load = |mut db: DbConnection| async move { db::load_log_page(&mut db, span, None).await };
            let LogPage { tip, rows, .. } = self.db.read_with_retry(load).await?;
            let read_at = Instant::now();
            // Read whose they are now, once for all readers, and not while they wait for the lock.
            let read = |row: LogRow| FeedEvent::new(row, tip.now, read_at).with_owner();
            let events: Vec<_> = rows.into_iter().map(read).collect();
            let era = era_of(&tip);
            if self.lock().era != Some(era) {
                let eras = self
                    .db
                    .read_with_retry(|mut db: DbConnection| async move { db::load_log_eras(&mut db).await })
                    .await?;
                let mut state = self.lock();
                state.eras = eras;
                state.era = Some(era);
                state.recent.restart(tip.head);
                state.retained_after = tip.retained_after;
                self.news.send_replace(());
                return Ok(());
            }
            let is_complete = {
                let mut state = self.lock();
                let before = state.recent.head();
                let is_complete = state.take(&tip, events);
                if state.recent.head() != before {
                    self.news.send_replace(());
                }
                is_complete
            };
            if is_complete {
                return Ok(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, TailState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TailState {
    fn ends(&self) -> LogEnds {
        LogEnds {
            era: self.era.unwrap_or(BEFORE_FIRST_ERA),
            head: self.recent.head(),
            retained_after: self.retained_after,
        }
    }

    /// The same place in the current era. Returns `None` if the log has gone on differently since, or not as far yet.
    fn in_current_era(&self, place: LogPlace) -> Option<LogPlace> {
        let LogEnds { era, head, .. } = self.ends();
        let before_first = LogEra { key: BEFORE_FIRST_ERA, after: 0 };
        let mut later =
            std::iter::once(&before_first).chain(&self.eras).skip_while(|era| era.key != place.era);
        later.next()?;
        let last_valid = later.next().map_or(i64::MAX, |next| next.after);
        (place.position <= head.min(last_valid)).then_some(LogPlace { era, ..place })
    }

    /// Takes the next page of the same era. Returns whether the end is reached.
    fn take(&mut self, tip: &LogTip, events: Vec<FeedEvent>) -> bool {
        self.retained_after = tip.retained_after;
        let has_events = !events.is_empty();
        let follows = events.into_iter().all(|event| self.recent.push(event));
        let missing = tip.head - self.recent.head();
        // The log went back, or events are missing, or nobody has waited for so long that the old ones would not be kept.
        if !follows || missing < 0 || missing > self.max_events || (missing > 0 && !has_events) {
            self.recent.restart(tip.head);
        }
        self.recent.head() == tip.head
    }
}

/// A reader that waits for news.
pub(super) struct TailWatch {
    tail: Arc<Tail>,
    news: watch::Receiver<()>,
}

impl TailWatch {
    /// What is new from here on resolves [`Self::changed`].
    pub(super) fn mark_seen(&mut self) {
        self.news.borrow_and_update();
    }

    /// Resolves when there was something new since [`Self::mark_seen`].
    pub(super) async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            // The tail lives as long as its watches.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for TailWatch {
    fn drop(&mut self) {
        self.tail.waiting.fetch_sub(1, Relaxed);
    }
}

/// The era of a tip, as cursors name it.
pub(super) fn era_of(tip: &LogTip) -> i32 {
    tip.era.unwrap_or(BEFORE_FIRST_ERA)
}
