//! Pays cache debts: writes the entries that could not be written while Redis was down.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use shared::{
    cache::{Cache, CacheError, CacheWrite},
    domain::order::{Order, OrderKey},
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
const DEBTS_PER_TRANSACTION: i64 = 200;
/// The pause if there are no debts, and after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The time limit of a payment. After it, the connection is closed.
const LIMIT: Duration = Duration::from_secs(5);

/// Pays debts by writing the entries of the orders as they are now.
#[derive(Clone)]
pub struct CacheDebts {
    db: DbPool,
    cache: Cache,
}

/// Why a debt was not paid.
#[derive(Debug, thiserror::Error)]
pub enum DebtError {
    /// The order could not be read.
    #[error("cannot read the orders from PostgreSQL")]
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

    /// Pays up to 200 debts and returns how many. Several workers can pay at the same time.
    pub async fn pay_once(&self) -> Result<usize, DebtError> {
        // Unless it is released at the end, the connection is closed, which rolls back.
        let mut connection = self.db.acquire().await?;
        let mut transaction = connection.begin().await?;
        let debts = cache_debts::lock_oldest_debts(&mut transaction, DEBTS_PER_TRANSACTION).await?;
        if debts.is_empty() {
            transaction.rollback().await?;
            connection.release();
            return Ok(0);
        }
        let keys: Vec<OrderKey> = debts.iter().map(|(order, _)| *order).collect();
        let found = orders::load_orders(&mut transaction, &keys).await?;
        let found: HashMap<OrderKey, Order> = found.into_iter().map(|order| (order.key(), order)).collect();
        let writes: Vec<CacheWrite> = debts
            .iter()
            .map(|(key, version)| match found.get(key) {
                Some(order) => current_entry(order, false),
                // Deleted. Its tombstone can be created: ids are never used again, so it stays true.
                None => CacheWrite { order: *key, version: *version, content: None, may_create: true },
            })
            .collect();
        self.cache.put(&writes).await?;
        cache_debts::delete_debts(&mut transaction, &keys).await?;
        transaction.commit().await?;
        connection.release();
        Ok(writes.len())
    }

    /// Pays debts until shutdown.
    pub async fn pay_until_shutdown(self: Arc<Self>, shutdown: Shutdown) {
        let mut owing = false;
        loop {
            let paid = match tokio::time::timeout(LIMIT, self.pay_once()).await {
                Ok(paid) => paid.map_err(|error| chain(&error)),
                Err(_) => Err(format!("it takes longer than {LIMIT:?}")),
            };
            let paid = paid.unwrap_or_else(|error| {
                if !owing {
                    tracing::warn!(error, "cannot pay cache debts yet");
                }
                owing = true;
                0
            });
            if paid > 0 && !shutdown.has_begun() {
                owing = false;
                tracing::info!(orders = paid, "paid cache debts");
                continue;
            }
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// The entry of an order as it is now, with the body that the API answers.
pub fn current_entry(order: &Order, may_create: bool) -> CacheWrite {
    let body = Bytes::from(order.to_json());
    CacheWrite {
        order: order.key(),
        version: order.version,
        content: Some((order.customer_id, body)),
        may_create,
    }
}
