//! Whose turn it is to relay: a row with owner, epoch and expiry, judged by the database's clock alone.

use std::time::Duration;

use shared::platform::db::{DbError, DbPool};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::OutboxError;

/// One replica's claim on the lease.
///
/// The holder counts its time from before it asked, so it stops believing in its lease before the database would
/// give it to another. A holder that was paused in the middle may still send what it had begun to send, but
/// cannot move the cursor: every change of the row asks for its owner and epoch.
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
    /// A claim that has not been made yet; `lifetime` is how long it lasts without renewal.
    pub fn new(pool: impl Into<DbPool>, lifetime: Duration) -> Self {
        Self { pool: pool.into(), owner: Uuid::now_v7(), lifetime, tenure: watch::Sender::new(None) }
    }

    /// How long the lease lasts without renewal.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Who claims it: a name of this relay's own.
    pub const fn owner(&self) -> Uuid {
        self.owner
    }

    /// The epoch of the lease while it is held and has not run out.
    pub fn held(&self) -> Option<i64> {
        self.tenure.borrow().filter(|tenure| tenure.until > Instant::now()).map(|tenure| tenure.epoch)
    }

    /// Takes the lease where nobody holds it, or its holder let it run out. `None`: another one holds it.
    pub async fn acquire(&self) -> Result<Option<i64>, DbError> {
        let asked = Instant::now();
        let statement = sqlx::query_scalar!(
            "UPDATE relay
             SET owner = $1, epoch = epoch + 1, updated_at = clock_timestamp(),
                 expires_at = clock_timestamp() + make_interval(secs => $2)
             WHERE singleton AND (owner IS NULL OR owner = $1 OR expires_at <= clock_timestamp())
             RETURNING epoch",
            self.owner,
            self.lifetime.as_secs_f64()
        );
        let epoch =
            self.pool.run_once(|mut db| async move { statement.fetch_optional(&mut *db).await }).await?;
        if let Some(epoch) = epoch {
            tracing::info!(relay.owner = %self.owner, relay.epoch = epoch, "this replica relays events now");
            self.tenure.send_replace(Some(Tenure { epoch, until: asked + self.lifetime }));
        }
        Ok(epoch)
    }

    /// Prolongs the lease from now on. `LeaseLost`: another replica has taken it.
    pub async fn renew(&self, epoch: i64) -> Result<(), OutboxError> {
        let asked = Instant::now();
        let statement = sqlx::query!(
            "UPDATE relay
             SET expires_at = clock_timestamp() + make_interval(secs => $3), updated_at = clock_timestamp()
             WHERE singleton AND owner = $1 AND epoch = $2",
            self.owner,
            epoch,
            self.lifetime.as_secs_f64()
        );
        let renewed = self.pool.run_once(|mut db| async move { statement.execute(&mut *db).await }).await?;
        self.prolonged(epoch, asked, renewed.rows_affected())
    }

    /// Notes what a change of the row under `epoch`, asked for at `asked`, came to: it prolonged the lease, or
    /// showed that it is lost.
    pub(super) fn prolonged(&self, epoch: i64, asked: Instant, rows: u64) -> Result<(), OutboxError> {
        if rows == 0 {
            self.forget(epoch);
            return Err(OutboxError::LeaseLost);
        }
        self.tenure.send_if_modified(|tenure| match tenure {
            Some(tenure) if tenure.epoch == epoch => {
                tenure.until = tenure.until.max(asked + self.lifetime);
                true
            }
            _ => false,
        });
        Ok(())
    }

    /// Stops believing in the lease of `epoch`; the next step asks for it anew.
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

    /// Resolves when the lease of `epoch` runs out or is lost.
    pub(super) async fn lost(&self, epoch: i64) {
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

    /// Gives the lease back, so that another replica takes over at once.
    pub async fn release(&self) -> Result<(), DbError> {
        let Some(Tenure { epoch, .. }) = self.tenure.send_replace(None) else { return Ok(()) };
        let statement = sqlx::query!(
            "UPDATE relay SET owner = NULL, expires_at = '-infinity', updated_at = clock_timestamp()
             WHERE singleton AND owner = $1 AND epoch = $2",
            self.owner,
            epoch
        );
        self.pool.run_once(|mut db| async move { statement.execute(&mut *db).await }).await?;
        tracing::info!(relay.owner = %self.owner, relay.epoch = epoch, "this replica gave the relay's lease back");
        Ok(())
    }
}
