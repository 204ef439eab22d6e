//! Reading all orders of a filter for an export: page by page, each page a statement of its own.

use std::{ops::RangeInclusive, time::Duration};

use shared::{
    domain::order::{Order, OrderId},
    platform::{
        db::{DbError, DbPool, PoolSettings},
        page_size::PageSize,
    },
};
use time::macros::datetime;

use crate::db::{self, ListPosition, OrderFilter};

/// Orders of a page. They take 2 MiB if they have the most lines.
const PAGE_ORDERS: RangeInclusive<usize> = 16..=500;
/// Those of the first page, as long as the size of their metadata is not known.
const FIRST_PAGE: usize = 50;
/// The metadata of a page, but for those of its last order: without a limit they could take 20 MiB.
const PAGE_METADATA_BYTES: usize = 1024 * 1024;
/// How long a page can take: with a filter that matches nothing, the index is read to its end, some millions of orders a
/// second.
const PAGE_LIMIT: Duration = Duration::from_secs(30);
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Reads orders for exports.
///
/// It reads from the primary: a replica may be behind the position in the log that an export begins with.
///
/// Pages go from the newest order to the oldest, because the list's indexes do. An order keeps its position for good (the time of
/// its creation and its id), so one that is created or changed meanwhile neither hides another nor shows it twice. One that is
/// created meanwhile may be missing, but its event comes after that position in the log.
pub(crate) struct ExportReader(DbPool);

/// A page of an export, and where the next one begins.
pub(crate) struct ExportPage {
    pub(crate) orders: Vec<Order>,
    /// `None` if nothing follows.
    pub(crate) next: Option<ExportPlace>,
}

/// Where a page of an export begins.
pub(crate) struct ExportPlace {
    after: ListPosition,
    /// How many orders to read: what is read beyond the limit of bytes is thrown away.
    size: PageSize,
}

impl ExportReader {
    /// `db` is the primary.
    pub(super) fn new(db: &DbPool, max_connections: u32) -> Self {
        let settings = PoolSettings::new("api-export", max_connections).with_limits(PAGE_LIMIT, LOCK_LIMIT);
        Self(db.sibling(settings))
    }

    /// Before the newest order.
    pub(crate) fn start() -> ExportPlace {
        let after = ListPosition { created_at: datetime!(9999-12-31 23:59:59.999_999 UTC), id: OrderId::MAX };
        ExportPlace { after, size: PageSize::new(PAGE_METADATA_BYTES, PAGE_ORDERS, FIRST_PAGE) }
    }

    /// Reads a page.
    pub(crate) async fn load_page(
        &self,
        filter: &OrderFilter,
        ExportPlace { after, mut size }: ExportPlace,
    ) -> Result<ExportPage, DbError> {
        let most = i64::try_from(size.items()).unwrap_or(i64::MAX);
        let page = self
            .0
            .read_with_retry(|mut db| async move {
                db::load_orders_after(&mut db, filter, after, most, PAGE_METADATA_BYTES).await
            })
            .await?;
        size.fit(page.orders.iter().map(|order| order.metadata.size()));
        let last = page.orders.last().filter(|_| page.has_next);
        let next = last.map(|order| {
            let after = ListPosition { created_at: order.created_at, id: order.id };
            ExportPlace { after, size }
        });
        Ok(ExportPage { orders: page.orders, next })
    }
}
