//! Which replica relays: a row with owner, epoch and expiry. Only the database's clock decides whether it has expired.

use std::time::Duration;

use shared::platform::db::{DbError, DbPool};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::OutboxError;

/// The lease, as one replica sees it.
///
/// The holder counts from before its request, so for the holder the lease expires before the database can give it to
/// another replica. A holder that was paused can still publish the batch that it had begun, but cannot move the position:
/// every change of the row requires its owner and epoch.
#[derive(Debug)]
pub struct Lease {
    pool: DbPool,
    owner: Uuid,
    lifetime: Duration,
    tenure: watch::Sender<Option<Tenure>>,
}

#[derive(Clone, Copy, Debug)]
struct Tenure {
    epoch: i64,
    until: Instant,
}

impl Lease {
    /// A lease that is not held yet; `lifetime` is how long it lasts without renewal.
    pub fn new(pool: impl Into<DbPool>, lifetime: Duration) -> Self {
        Self { pool: pool.into(), owner: Uuid::now_v7(), lifetime, tenure: watch::Sender::new(None) }
    }

    /// How long the lease lasts without renewal.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The unique name of this relay.
    pub const fn owner(&self) -> Uuid {
        self.owner
    }

    /// The epoch of the lease, if this replica holds it and it has not expired.
    pub fn held_epoch(&self) -> Option<i64> {
        self.tenure.borrow().filter(|tenure| tenure.until > Instant::now()).map(|tenure| tenure.epoch)
    }

    /// Takes the lease if no replica holds it, or if it has expired. `None` if another replica holds it.
    ///
    /// A lease that was last renewed in the future counts as expired: the clock of the database was set back, and a replica that
    /// is alive renews it soon.
    pub async fn acquire(&self) -> Result<Option<i64>, DbError> {
        let asked_at = Instant::now();
        let statement = sqlx::query_scalar!(
            "UPDATE relay
             SET owner = $1, epoch = epoch + 1, updated_at = clock_timestamp(),
                 expires_at = clock_timestamp() + make_interval(secs => $2)
             WHERE singleton AND (owner IS NULL OR owner = $1 OR expires_at <= clock_timestamp()
                 OR updated_at > clock_timestamp() + make_interval(secs => $2))
             RETURNING epoch",
            self.owner,
            self.lifetime.as_secs_f64()
        );
        let epoch =
            self.pool.run_once(|mut db| async move { statement.fetch_optional(&mut *db).await }).await?;
        if let Some(epoch) = epoch {
            tracing::info!(relay.owner = %self.owner, relay.epoch = epoch, "this replica relays events now");
            self.tenure.send_replace(Some(Tenure { epoch, until: asked_at + self.lifetime }));
        }
        Ok(epoch)
    }

    /// Renews the lease. Fails with `LeaseLost` if another replica has taken it.
    pub async fn renew(&self, epoch: i64) -> Result<(), OutboxError> {
        let asked_at = Instant::now();
        let statement = sqlx::query!(
            "UPDATE relay
             SET expires_at = clock_timestamp() + make_interval(secs => $3), updated_at = clock_timestamp()
             WHERE singleton AND owner = $1 AND epoch = $2",
            self.owner,
            epoch,
            self.lifetime.as_secs_f64()
        );
        let renewed = self.pool.run_once(|mut db| async move { statement.execute(&mut *db).await }).await?;
        self.record_renewal(epoch, asked_at, renewed.rows_affected())
    }

    /// Records the result of a change of the row under `epoch` that was requested at `asked_at`: it renewed the lease, or
    /// showed that the lease is lost.
    pub(super) fn record_renewal(&self, epoch: i64, asked_at: Instant, rows: u64) -> Result<(), OutboxError> {
        if rows == 0 {
            self.forget(epoch);
            return Err(OutboxError::LeaseLost);
        }
        self.tenure.send_if_modified(|tenure| match tenure {
            Some(tenure) if tenure.epoch == epoch => {
                tenure.until = tenure.until.max(asked_at + self.lifetime);
                true
            }
            _ => false,
        });
        Ok(())
    }

    /// Counts the lease of `epoch` as not held; the next step requests it again.
    pub(super) fn forget(&self, epoch: i64) {
        let forgotten = self.tenure.send_if_modified(|tenure| {
            let ours = tenure.is_some_and(|tenure| tenure.epoch == epoch);
            if ours {
                *tenure = None;
            }
            ours
        });
        if forgotten {
            tracing::info!(relay.owner = %self.owner, relay.epoch = epoch, "this replica no longer relays events");
        }
    }

    /// Resolves when the lease of `epoch` expires or is lost.
    pub(super) async fn wait_until_lost(&self, epoch: i64) {
        let mut tenures = self.tenure.subscribe();
        loop {
            let until = match *tenures.borrow_and_update() {
                Some(tenure) if tenure.epoch == epoch => tenure.until,
                _ => return,
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = tenures.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Releases the lease, so that another replica takes over at once.
    pub async fn release(&self) -> Result<(), DbError> {
        let Some(Tenure { epoch, .. }) = self.tenure.send_replace(None) else { return Ok(()) };
        let statement = sqlx::query!(
            "UPDATE relay SET owner = NULL, expires_at = '-infinity', updated_at = clock_timestamp()
             WHERE singleton AND owner = $1 AND epoch = $2",
            self.owner,
            epoch
        );
        self.pool.run_once(|mut db| async move { statement.execute(&mut *db).await }).await?;
        tracing::info!(relay.owner = %self.owner, relay.epoch = epoch, "this replica released the relay's lease");
        Ok(())
    }
}
