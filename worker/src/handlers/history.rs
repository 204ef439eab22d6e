//! Records every version of every order.

use async_trait::async_trait;
use shared::db::Connections;
use sqlx::PgPool;

use super::{EventHandler, HandlerError, HandlerEvent};
use crate::store::{Session, bounded, history};

/// Writes a batch's rows in one statement. A version that is recorded already stays as it is.
#[derive(Debug)]
pub struct HistoryHandler {
    db: Connections,
}

impl HistoryHandler {
    /// Records into `db`.
    pub fn new(db: PgPool) -> Self {
        let half = usize::try_from(db.options().get_max_connections() / 2).unwrap_or(usize::MAX);
        Self { db: Connections::new(db, half) }
    }
}

#[async_trait]
impl EventHandler for HistoryHandler {
    fn name(&self) -> &'static str {
        "history"
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        let mut events: Vec<_> = batch.iter().map(|item| item.event.as_ref()).collect();
        // One order of locking for all workers: two that got the same events cannot wait for each other.
        events.sort_unstable_by_key(|event| (event.data.order_id, event.data.version));
        let mut session = Session::open(&self.db).await?;
        let inserted = bounded(history::insert(&mut session, &events)).await?;
        session.release();
        metrics::counter!("worker_history_rows_total").increment(inserted);
        Ok(())
    }
}
