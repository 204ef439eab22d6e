//! Removes tenants with everything of them, step by step: each step is one transaction, so that it goes on where it was if the
//! worker is killed, and several workers do no harm to each other.

use std::{collections::HashSet, sync::Arc, time::Duration};

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
    rows: i64,
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
        Self { db, redis, source, grace: GRACE, rows: ROWS }
    }

    /// The same, beginning so long after a removal was ordered.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// The same, looking at so many rows in each step.
    #[must_use]
    pub fn with_rows(self, rows: i64) -> Self {
        Self { rows, ..self }
    }

    /// The tenants whose removal is due, in the order in which they were ordered.
    async fn find_due(&self) -> Result<Vec<TenantId>, RemovalError> {
        let mut connection = self.db.acquire().await?;
        let due = removal::list_removals(&mut connection, self.grace).await?;
        connection.release();
        Ok(due)
    }

    /// Does one step of a tenant's removal, if it is due and no other worker is at it.
    pub async fn remove_step(&self, tenant: TenantId) -> Result<RemovalProgress, RemovalError> {
        // Unless it is released at the end, the connection is closed, which rolls back.
        let mut connection = self.db.acquire().await?;
        let mut transaction = connection.begin().await?;
        let progress = match removal::lock_removal(&mut transaction, tenant, self.grace).await? {
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
                // Asked first: what is published between the two would not be looked at.
                if !removal::is_published(db, tenant).await? {
                    return Ok(RemovalProgress::Nothing);
                }
                let (last, removed) = removal::remove_events(db, tenant, after, PAGES).await?;
                gone.events = removed;
                if last.is_none() {
                    gone.events += removal::remove_forgotten_events(db, tenant).await?;
                }
                last
            }
            RemovalStep::Orders => {
                let (last, removed) = removal::remove_orders(db, tenant, after, self.rows).await?;
                gone.orders = removed;
                last
            }
            RemovalStep::History => {
                let (last, removed) = removal::remove_history(db, tenant, after, self.rows).await?;
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

    /// Does a step of each removal that is due, so that one that has to wait holds up no other. Returns whether any has come further.
    async fn remove_of_each(&self, failing: &mut HashSet<TenantId>) -> Result<bool, RemovalError> {
        let due = self.find_due().await?;
        failing.retain(|tenant| due.contains(tenant));
        let mut came_further = false;
        for tenant in due {
            match self.remove_step(tenant).await {
                Ok(progress) => {
                    came_further |= progress != RemovalProgress::Nothing;
                    failing.remove(&tenant);
                }
                Err(error) => {
                    if failing.insert(tenant) {
                        tracing::warn!(%tenant, error = chain(&error), "a tenant cannot be removed yet");
                    }
                }
            }
        }
        Ok(came_further)
    }

    /// Removes until shutdown.
    pub async fn run_until_shutdown(self: Arc<Self>, shutdown: Shutdown) {
        let (mut failing, mut is_blind) = (HashSet::new(), false);
        while !shutdown.has_begun() {
            match self.remove_of_each(&mut failing).await {
                Ok(came_further) => {
                    is_blind = false;
                    if came_further {
                        continue;
                    }
                }
                Err(error) => {
                    if !is_blind {
                        tracing::warn!(error = chain(&error), "cannot see which tenants are to be removed");
                    }
                    is_blind = true;
                }
            }
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// The keys of a tenant in Redis: entries of the cache with their marks, sessions, tickets, and counts of limits. None of them fits a
/// key of another tenant, such as the mark of the default tenant's order of this number, or the count of a network that has it as a part.
fn redis_patterns(tenant: TenantId) -> [String; 6] {
    [
        format!("cache:order:{tenant}:[0-9]*"),
        format!("cache:*:{{order:{tenant}:[0-9]*"),
        format!("session:{tenant}:*"),
        format!("ticket:{tenant}:*"),
        format!("limit:customer:{tenant}:*"),
        format!("limit:tenant:{tenant}"),
    ]
}
