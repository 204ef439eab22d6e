//! Removes tenants with everything of them, step by step: each step is one transaction, so that it goes on where it was if the
//! worker is killed, and several workers do no harm to each other.

use std::{sync::Arc, time::Duration};

use shared::{
    broker::{BrokerError, EventSource},
    domain::tenant::TenantId,
    platform::{
        db::{DbError, DbPool, PoolSettings},
        redis::{Redis, RedisFailure},
        shutdown::Shutdown,
    },
};
use sqlx::Connection as _;

use crate::{
    errors::chain,
    store::removal::{self, Gone, Removal, RemovalStep},
};

/// How long after a removal was ordered it begins: requests that were under way, and replicas that had not heard of it, are done
/// by then.
pub const GRACE: Duration = Duration::from_secs(20);
/// The pause if there is nothing to remove, or what is there must be published first.
const PAUSE: Duration = Duration::from_secs(2);
/// Connections for removals: a step can read a whole table or all keys of Redis, in a transaction that is idle meanwhile.
pub const POOL: PoolSettings =
    PoolSettings::new("worker removal", 1).with_limits(Duration::from_mins(10), Duration::from_secs(2));
/// Pages of the log that one step looks at.
const PAGES: i32 = 20;
/// Rows that one step looks at.
const ROWS: i64 = 2000;

/// Removes tenants whose removal was ordered.
pub struct TenantRemoval {
    db: DbPool,
    redis: Redis,
    source: Arc<dyn EventSource>,
    grace: Duration,
}

/// What one step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalProgress {
    /// A part is gone.
    Removed,
    /// A tenant is gone.
    Finished,
    /// There is nothing to do now.
    Nothing,
}

/// Why a step failed. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// PostgreSQL does not answer, or refuses.
    #[error("cannot remove rows from PostgreSQL")]
    Store(#[from] DbError),
    /// Redis does not answer.
    #[error("cannot remove keys from Redis")]
    Redis(#[from] RedisFailure),
    /// The broker does not answer.
    #[error("cannot remove events from the broker")]
    Broker(#[from] BrokerError),
}

impl From<sqlx::Error> for RemovalError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl TenantRemoval {
    /// Removes what `db`, `redis` and the broker behind `source` hold.
    pub fn new(db: DbPool, redis: Redis, source: Arc<dyn EventSource>) -> Self {
        Self { db, redis, source, grace: GRACE }
    }

    /// The same, beginning so long after a removal was ordered.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Does one step.
    pub async fn remove_once(&self) -> Result<RemovalProgress, RemovalError> {
        // Unless it is released at the end, the connection is closed, which rolls back.
        let mut connection = self.db.acquire().await?;
        let mut transaction = connection.begin().await?;
        let progress = match removal::lock_removal(&mut transaction, self.grace).await? {
            Some(removal) => self.remove_next(&mut transaction, removal).await?,
            None => RemovalProgress::Nothing,
        };
        transaction.commit().await?;
        connection.release();
        Ok(progress)
    }

    async fn remove_next(
        &self,
        db: &mut sqlx::PgConnection,
        removal: Removal,
    ) -> Result<RemovalProgress, RemovalError> {
        let Removal { tenant, step, after } = removal;
        let mut gone = Gone::default();
        // Where the step goes on; `None` if it is done.
        let next = match step {
            RemovalStep::Events => {
                let (last, removed) = removal::remove_events(db, tenant, after, PAGES).await?;
                gone.events = removed;
                if last.is_none() && !removal::is_published(db, tenant).await? {
                    return Ok(RemovalProgress::Nothing);
                }
                last
            }
            RemovalStep::Orders => {
                gone.orders = removal::remove_orders(db, tenant, ROWS).await?;
                (gone.orders > 0).then_some(0)
            }
            RemovalStep::History => {
                let (last, removed) = removal::remove_history(db, tenant, after, ROWS).await?;
                gone.entries = removed;
                last
            }
            RemovalStep::Rest => {
                removal::remove_rest(db, tenant).await?;
                None
            }
            RemovalStep::Outside => {
                for pattern in redis_patterns(tenant) {
                    self.redis.remove_matching(&pattern).await?;
                }
                self.source.forget_tenant(tenant).await?;
                None
            }
        };
        let next = match (next, step.next()) {
            (Some(after), _) => Removal { after, ..removal },
            (None, Some(step)) => Removal { tenant, step, after: 0 },
            (None, None) => {
                removal::remove_tenant(db, tenant).await?;
                tracing::info!(%tenant, "a tenant is removed, with everything of it");
                return Ok(RemovalProgress::Finished);
            }
        };
        removal::save_removal(db, next, gone).await?;
        Ok(RemovalProgress::Removed)
    }

    /// Removes until shutdown.
    pub async fn run_until_shutdown(self, shutdown: Shutdown) {
        let mut was_failing = false;
        while !shutdown.has_begun() {
            match self.remove_once().await {
                Ok(RemovalProgress::Removed | RemovalProgress::Finished) => {
                    was_failing = false;
                    continue;
                }
                Ok(RemovalProgress::Nothing) => was_failing = false,
                Err(error) => {
                    if !was_failing {
                        tracing::warn!(error = chain(&error), "a tenant cannot be removed yet");
                    }
                    was_failing = true;
                }
            }
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// The keys of a tenant in Redis: entries of the cache with their marks, sessions, and counts of limits.
fn redis_patterns(tenant: TenantId) -> [String; 4] {
    [
        format!("cache:*order:{tenant}:*"),
        format!("session:{tenant}:*"),
        format!("limit:*:{tenant}:*"),
        format!("limit:tenant:{tenant}"),
    ]
}
