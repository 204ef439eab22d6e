//! Pays what the cache is owed: entries that could not be written while Redis was away.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use shared::{
    cache::{Cache, CacheError, CacheWrite},
    domain::order::{Order, OrderId},
    platform::{
        db::{DbError, DbPool},
        shutdown::Shutdown,
    },
};
use sqlx::Connection as _;

use crate::{
    errors::chain,
    store::{cache_debts, orders},
};

/// Debts paid in one transaction.
const AT_ONCE: i64 = 200;
/// Between looks, and after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// A payment that takes longer failed, and its connection is closed.
const LIMIT: Duration = Duration::from_secs(5);

/// Pays debts from the orders as they are.
#[derive(Clone)]
pub struct CacheDebts {
    db: DbPool,
    cache: Cache,
}

/// A debt was not paid.
#[derive(Debug, thiserror::Error)]
pub enum DebtError {
    /// The order could not be read.
    #[error("PostgreSQL did not give the orders")]
    Store(#[from] DbError),
    /// Redis is still away.
    #[error("the cache did not take the entries")]
    Cache(#[from] CacheError),
}

impl From<sqlx::Error> for DebtError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl CacheDebts {
    /// Owed to `cache`, noted in `db`.
    pub fn new(db: impl Into<DbPool>, cache: Cache) -> Self {
        Self { db: db.into(), cache }
    }

    /// Pays some, and says how many. Several workers may do so at a time.
    pub async fn pay_once(&self) -> Result<usize, DebtError> {
        // Closed, and so rolled back, unless it comes to its end.
        let mut connection = self.db.acquire().await?;
        let mut transaction = connection.begin().await?;
        let debts = cache_debts::lock_some(&mut transaction, AT_ONCE).await?;
        if debts.is_empty() {
            transaction.rollback().await?;
            connection.release();
            return Ok(0);
        }
        let ids: Vec<OrderId> = debts.iter().map(|(id, _)| *id).collect();
        let found = orders::by_ids(&mut transaction, &ids).await?;
        let found: HashMap<OrderId, Order> = found.into_iter().map(|order| (order.id, order)).collect();
        let writes: Vec<CacheWrite> = debts
            .iter()
            .map(|(id, version)| match found.get(id) {
                Some(order) => current(order, false),
                // Deleted. Its tombstone may be created: ids do not come again, so it is true for ever.
                None => CacheWrite { id: *id, version: *version, content: None, may_create: true },
            })
            .collect();
        self.cache.put(&writes).await?;
        cache_debts::strike(&mut transaction, &ids).await?;
        transaction.commit().await?;
        connection.release();
        Ok(writes.len())
    }

    /// Pays until shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let mut owing = false;
        loop {
            let paid = match tokio::time::timeout(LIMIT, self.pay_once()).await {
                Ok(Ok(paid)) => paid,
                Ok(Err(error)) => {
                    if !owing {
                        tracing::warn!(
                            error = chain(&error),
                            "cache entries are owed and cannot be paid yet"
                        );
                    }
                    owing = true;
                    0
                }
                Err(_) => 0,
            };
            if paid > 0 && !shutdown.has_begun() {
                owing = false;
                tracing::info!(orders = paid, "wrote cache entries that were owed");
                continue;
            }
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// The entry of an order as it is now, exactly as the API answers it.
pub fn current(order: &Order, may_create: bool) -> CacheWrite {
    let body = Bytes::from(order.to_json());
    CacheWrite { id: order.id, version: order.version, content: Some((order.customer_id, body)), may_create }
}
