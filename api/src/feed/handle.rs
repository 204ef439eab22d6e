//! The feed of this process, as handlers use it.

use std::{sync::Arc, time::Duration};

use shared::platform::{
    db::{DbPool, PoolSettings},
    redis::Redis,
    shutdown::Shutdown,
};
use tokio::{sync::watch, time::Instant};

use super::{
    cursor::{CursorKeys, FeedScope, LogPlace},
    error::FeedError,
    event::{EventFilter, FeedEvent},
    metrics,
    reader::{CatchUp, FeedReader},
    settings::FeedSettings,
    streams::{OpenStream, StreamSlots, TooManyStreams},
    tail::Tail,
    tickets::{self, StreamTicket, TicketError},
};
use crate::auth::{AuthConfig, Caller};

/// How often stalled streams are looked for.
const LOOK_FOR_STALLED: Duration = Duration::from_millis(250);

/// The feed of this process. Clones share it.
#[derive(Clone)]
pub struct Feed {
    tail: Arc<Tail>,
    catch_up: Arc<CatchUp>,
    keys: Arc<CursorKeys>,
    streams: StreamSlots,
    redis: Redis,
    settings: FeedSettings,
}

/// What the feed is made from.
pub struct FeedConfig<'a> {
    /// The secrets from which the keys of cursors are derived.
    pub auth: &'a AuthConfig,
    /// The limits.
    pub settings: FeedSettings,
    /// Changes whenever this process has given positions to events.
    pub sequenced: watch::Receiver<Instant>,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedStart<'a> {
    /// At the oldest event that is retained.
    Start,
    /// After the newest event.
    Now,
    /// After the place that a cursor names.
    Cursor(&'a str),
}

impl Feed {
    /// Starts the task that reads the end of the log while somebody waits for it.
    ///
    /// The feed has connections of its own, so that readers who catch up do not make requests wait.
    pub fn start(db: &DbPool, redis: Redis, config: FeedConfig<'_>, shutdown: &Shutdown) -> Self {
        let FeedConfig { auth, settings, sequenced } = config;
        metrics::describe_metrics();
        // One more for the end of the log.
        let connections = u32::try_from(settings.catch_ups + 1).unwrap_or(u32::MAX);
        let db = db.sibling(PoolSettings::new("feed", connections));
        let feed = Self {
            tail: Arc::new(Tail::new(db.clone(), &settings)),
            catch_up: Arc::new(CatchUp::new(db.clone(), &settings)),
            keys: Arc::new(CursorKeys::new(auth)),
            streams: StreamSlots::new(&settings),
            redis,
            settings,
        };
        let running = feed.clone();
        shutdown.spawn_restarting("feed", move |until| {
            let (running, sequenced, db) = (running.clone(), sequenced.clone(), db.clone());
            async move {
                tokio::select! {
                    () = running.tail.run(settings.poll, sequenced, &until) => {}
                    () = running.cut_stalled_streams() => {}
                }
                db.close();
            }
        });
        feed
    }

    /// The limits.
    pub fn settings(&self) -> &FeedSettings {
        &self.settings
    }

    /// Begins to read.
    pub async fn open(
        &self,
        start: FeedStart<'_>,
        scope: FeedScope,
        filter: EventFilter,
    ) -> Result<FeedReader, FeedError> {
        let named = match start {
            FeedStart::Cursor(text) => Some(self.keys.verify(text, scope).ok_or(FeedError::BadCursor)?),
            FeedStart::Start | FeedStart::Now => None,
        };
        let ends = self.tail.refresh().await?;
        let position = match (named, start) {
            (Some(place), _) => self.tail.find(place)?.position,
            (None, FeedStart::Now) => ends.head,
            (None, _) => ends.retained_after,
        };
        let place = LogPlace { era: ends.era, position };
        Ok(self.reader(place, scope, filter, start == FeedStart::Start))
    }

    /// The cursor after which every event is retained. `missing` is a position whose event is known not to be.
    pub async fn oldest_cursor(&self, scope: FeedScope, missing: Option<i64>) -> Result<String, FeedError> {
        let ends = self.tail.refresh().await?;
        let position = missing.map_or(ends.retained_after, |missing| missing.max(ends.retained_after));
        let place = LogPlace { era: ends.era, position };
        let mut reader =
            self.reader(place, FeedScope { customer: None, ..scope }, EventFilter::default(), true);
        let events = reader.read(1).await?.events;
        let position = events.first().map_or(reader.position(), |oldest| oldest.position - 1);
        Ok(self.keys.sign(LogPlace { position, ..place }, scope))
    }

    /// The cursor after the newest event: what is committed later comes after it.
    pub async fn newest_cursor(&self, scope: FeedScope) -> Result<String, FeedError> {
        let ends = self.tail.refresh().await?;
        Ok(self.keys.sign(LogPlace { era: ends.era, position: ends.head }, scope))
    }

    /// Counts a stream of a caller, if there is room for it. `close` closes its connection.
    pub fn open_stream(
        &self,
        caller: Caller,
        close: impl Fn() + Send + Sync + 'static,
    ) -> Result<OpenStream, TooManyStreams> {
        self.streams.open(caller.identity(), close)
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.streams.count()
    }

    /// How many readers wait for news, in streams and long polls.
    pub fn waiting(&self) -> usize {
        self.tail.waiting()
    }

    /// Records how long a stream that has caught up waited for the oldest event of what it is handed.
    pub fn record_lag(&self, oldest: &FeedEvent) {
        metrics::record_lag(oldest);
    }

    /// Issues a ticket for one stream.
    pub async fn issue_ticket(&self, ticket: StreamTicket) -> Result<String, TicketError> {
        tickets::issue(&self.redis, ticket).await
    }

    /// Takes a ticket, which then cannot be used again.
    pub async fn redeem_ticket(&self, text: &str) -> Result<StreamTicket, TicketError> {
        tickets::redeem(&self.redis, text).await
    }

    fn reader(
        &self,
        place: LogPlace,
        scope: FeedScope,
        filter: EventFilter,
        skips_missing: bool,
    ) -> FeedReader {
        let parts = (Arc::clone(&self.tail), Arc::clone(&self.catch_up), Arc::clone(&self.keys));
        FeedReader::new(parts, place, scope, filter, skips_missing)
    }

    async fn cut_stalled_streams(&self) {
        let FeedSettings { stalled_after, max_behind, .. } = self.settings;
        loop {
            tokio::time::sleep(LOOK_FOR_STALLED.min(stalled_after)).await;
            let is_far_behind = |position| self.tail.bytes_after(position) > max_behind;
            self.streams.cut_stalled(stalled_after, self.catch_up.is_full(), is_far_behind);
        }
    }
}
