//! A reader of the feed: from the database until it has caught up, then from memory.

use std::{ops::RangeInclusive, sync::Arc};

use shared::{
    domain::tenant::TenantId,
    platform::{
        db::{DbConnection, DbPool},
        page_size::PageSize,
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};

use super::{
    cursor::{CursorKeys, FeedScope, LogPlace},
    error::FeedError,
    event::{EventFilter, FeedEvent},
    settings::FeedSettings,
    tail::{RecentEvents, Tail, TailWatch, era_of},
};
use crate::db::{self, LogPage, LogRow, LogSpan};

/// The bytes after which a page from the database ends: it is held until the reader has sent it.
const PAGE_BYTES: usize = 1024 * 1024;
/// The positions of a page: no more than are likely to fit, because PostgreSQL reads the others in vain.
const PAGE: RangeInclusive<usize> = 16..=1000;
/// How many positions are looked at for dropped events at the beginning of the retained log.
const BEGINNING: i32 = 1000;

/// Reads pages from the database for the readers that are behind, a few at a time.
pub(super) struct CatchUp {
    db: DbPool,
    reading: Semaphore,
    /// For streams, which hold a page until their clients have it,
    held: Arc<Semaphore>,
    /// and for responses that are made at once, so that slow streams do not make them wait.
    passing: Arc<Semaphore>,
}

impl CatchUp {
    pub(super) fn new(db: DbPool, settings: &FeedSettings) -> Self {
        Self {
            db,
            reading: Semaphore::new(settings.catch_ups),
            held: Arc::new(Semaphore::new(settings.held_pages)),
            passing: Arc::new(Semaphore::new(settings.passing_pages)),
        }
    }

    /// Whether streams wait for others to give back their pages.
    pub(super) fn is_full(&self) -> bool {
        self.held.available_permits() == 0
    }

    /// Reads the tenant's events of at most `most` positions after `after`, when there is room for them.
    async fn load_page(
        self: Arc<Self>,
        after: i64,
        most: usize,
        tenant: TenantId,
        for_stream: bool,
    ) -> Result<LoadedPage, FeedError> {
        // Neither is ever closed.
        let closed = |_| FeedError::Replaced;
        let room = if for_stream { &self.held } else { &self.passing };
        let held = Arc::clone(room).acquire_owned().await.map_err(closed)?;
        let _reading = self.reading.acquire().await.map_err(closed)?;
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        let span = LogSpan { after, most, bytes: PAGE_BYTES };
        let load = |mut db: DbConnection| async move { db::load_log_page(&mut db, span, Some(tenant)).await };
        let page = self.db.read_with_retry(load).await?;
        Ok(LoadedPage { after, page, read_at: Instant::now(), held })
    }

    /// The last position of the page after `after` whose event was dropped.
    async fn last_dropped(&self, after: i64) -> Result<Option<i64>, FeedError> {
        let _reading = self.reading.acquire().await.map_err(|_| FeedError::Replaced)?;
        let find =
            |mut db: DbConnection| async move { db::last_dropped_position(&mut db, after, BEGINNING).await };
        Ok(self.db.read_with_retry(find).await?)
    }
}

/// A page from the database.
struct LoadedPage {
    after: i64,
    page: LogPage,
    read_at: Instant,
    held: OwnedSemaphorePermit,
}

/// Reads the events of one scope and filter, in the order of the log.
pub struct FeedReader {
    tail: Arc<Tail>,
    catch_up: Arc<CatchUp>,
    keys: Arc<CursorKeys>,
    /// Only of a reader that has waited: nobody reads the end of the log for one that does not.
    watch: Option<TailWatch>,
    place: LogPlace,
    scope: FeedScope,
    filter: EventFilter,
    /// Begin after the last missing event of the first page: it begins where the retained log does.
    skips_missing: bool,
    page: PageSize,
    /// Whether the next page is read while this one is being sent, as for a stream.
    reads_ahead: bool,
    ahead: Option<PageAhead>,
}

/// The page after a position, which is being read. It is not read on if this is dropped.
struct PageAhead {
    after: i64,
    task: JoinSet<Result<LoadedPage, FeedError>>,
}

/// What one step of a reader has found.
#[derive(Debug)]
pub struct FeedBatch {
    /// The events that pass, oldest first.
    pub events: Vec<Arc<FeedEvent>>,
    /// Whether the reader has reached the end of the log.
    pub is_at_tip: bool,
    /// The share of the memory for pages from the database.
    _held: Option<OwnedSemaphorePermit>,
}

impl FeedBatch {
    /// Gives back the memory of events that were dealt with.
    pub fn clear(&mut self) {
        *self = Self { events: Vec::new(), is_at_tip: self.is_at_tip, _held: None };
    }
}

impl FeedReader {
    pub(super) fn new(
        (tail, catch_up, keys): (Arc<Tail>, Arc<CatchUp>, Arc<CursorKeys>),
        place: LogPlace,
        scope: FeedScope,
        filter: EventFilter,
        skips_missing: bool,
    ) -> Self {
        Self {
            tail,
            catch_up,
            keys,
            watch: None,
            place,
            scope,
            filter,
            skips_missing,
            page: PageSize::new(PAGE_BYTES, PAGE, *PAGE.end()),
            reads_ahead: false,
            ahead: None,
        }
    }

    /// From now on the next page is read while the one before it is being sent: for a stream, which needs it in any case.
    pub fn read_ahead(&mut self) {
        self.reads_ahead = true;
    }

    /// The position up to which the log has been read.
    pub fn position(&self) -> i64 {
        self.place.position
    }

    /// The cursor up to which the log has been read.
    pub fn cursor(&self) -> String {
        self.cursor_at(self.place.position)
    }

    /// The cursor after an event.
    pub fn cursor_at(&self, position: i64) -> String {
        self.keys.sign(LogPlace { position, ..self.place }, self.scope)
    }

    /// Reads on: some of the next events, at most `most`. No event passed if there are none, also if it is not at the end.
    ///
    /// If the caller stops waiting, nothing is lost.
    pub async fn read(&mut self, most: usize) -> Result<FeedBatch, FeedError> {
        self.watch.iter_mut().for_each(TailWatch::mark_seen);
        if self.place.position > self.tail.head() {
            // A page from the database was newer than what the tail has seen.
            self.tail.refresh().await?;
        }
        let (filter, scope) = (&self.filter, self.scope);
        let recent = self.tail.recent(&mut self.place, most, |event| filter.admits(scope, event))?;
        if let Some(RecentEvents { events, is_at_tip }) = recent {
            self.skips_missing = false;
            self.ahead = None;
            return Ok(FeedBatch { events, is_at_tip, _held: None });
        }
        self.read_page(most).await
    }

    /// Waits until there can be something new after the end of the log that [`Self::read`] found.
    pub async fn wait(&mut self) {
        match &mut self.watch {
            Some(watch) => watch.changed().await,
            // What has come since the end was read is found at once.
            None => self.watch = Some(self.tail.watch()),
        }
    }

    async fn read_page(&mut self, most: usize) -> Result<FeedBatch, FeedError> {
        loop {
            if self.skips_missing
                && let Some(dropped) = self.catch_up.last_dropped(self.place.position).await?
            {
                self.place.position = dropped;
            }
            let LoadedPage { after, page: LogPage { tip, rows, end }, read_at, held } =
                self.next_page(most).await?;
            if era_of(&tip) != self.place.era || tip.head < after {
                self.tail.refresh().await?;
                self.place = self.tail.find(self.place)?;
                continue;
            }
            match last_missing(after, end, &rows) {
                Some(missing) if self.skips_missing => self.place.position = missing,
                missing @ Some(_) => return Err(FeedError::Expired { missing }),
                None => {
                    self.skips_missing = false;
                    self.page.fit(rows.iter().map(|row| row.payload.len()));
                    if self.reads_ahead && end < tip.head {
                        self.begin_page(end);
                    }
                    let events = rows.into_iter().map(|row| Arc::new(FeedEvent::new(row, tip.now, read_at)));
                    let events = self.select(events, most);
                    let is_at_tip = self.place.position == tip.head;
                    return Ok(FeedBatch { events, is_at_tip, _held: Some(held) });
                }
            }
        }
    }

    /// The page after the reader's position: the one that was read ahead, or a new one.
    async fn next_page(&mut self, most: usize) -> Result<LoadedPage, FeedError> {
        let after = self.place.position;
        if let Some(PageAhead { mut task, .. }) = self.ahead.take().filter(|ahead| ahead.after == after)
            && let Some(Ok(page)) = task.join_next().await
        {
            return page;
        }
        // If every event passes, no more of them are needed.
        let wanted = if self.filter.admits_all(self.scope) { most } else { usize::MAX };
        let most = self.page.items().min(wanted);
        Arc::clone(&self.catch_up).load_page(after, most, self.scope.tenant, self.reads_ahead).await
    }

    /// Begins to read the page after a position.
    fn begin_page(&mut self, after: i64) {
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&self.catch_up).load_page(after, self.page.items(), self.scope.tenant, true));
        self.ahead = Some(PageAhead { after, task });
    }

    /// Reads up to the `most`th event that passes.
    fn select(
        &mut self,
        events: impl IntoIterator<Item = Arc<FeedEvent>>,
        most: usize,
    ) -> Vec<Arc<FeedEvent>> {
        let mut selected = Vec::new();
        for event in events {
            if selected.len() == most {
                break;
            }
            self.place.position = event.position;
            if self.filter.admits(self.scope, &event) {
                selected.push(event);
            }
        }
        selected
    }
}

/// The last position after `after` and up to `end` that has no row.
fn last_missing(after: i64, end: i64, rows: &[LogRow]) -> Option<i64> {
    let mut expected = end;
    for row in rows.iter().rev() {
        if row.position != expected {
            return Some(expected);
        }
        expected -= 1;
    }
    (expected > after).then_some(expected)
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn the_last_missing_position_is_found() {
        let rows = |positions: &[i64]| -> Vec<LogRow> {
            let row = |position: &i64| LogRow {
                position: *position,
                tenant: None,
                sequenced_at: OffsetDateTime::UNIX_EPOCH,
                event_type: String::new(),
                order_id: 1,
                payload: String::new(),
            };
            positions.iter().map(row).collect()
        };
        assert_eq!(last_missing(4, 7, &rows(&[5, 6, 7])), None);
        assert_eq!(last_missing(4, 4, &rows(&[])), None);
        assert_eq!(last_missing(4, 7, &rows(&[6, 7])), Some(5));
        assert_eq!(last_missing(4, 7, &rows(&[5, 7])), Some(6));
        assert_eq!(last_missing(4, 7, &rows(&[5, 6])), Some(7));
        assert_eq!(last_missing(4, 7, &rows(&[])), Some(7));
    }
}
