//! What is done with events. The consumer knows only this trait; only handlers know orders.

pub mod cache;
pub mod history;

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use shared::{
    cache::Cache,
    domain::event::Event,
    platform::{
        db::{DbError, DbPool},
        shutdown::Shutdown,
    },
};
use time::OffsetDateTime;

use self::{cache::CacheHandler, history::HistoryHandler};

/// Every handler: what `worker run` gives each event to, and what `worker replay --handler` can name.
pub fn all(
    db: &DbPool,
    cache: &Cache,
    cache_ttl: Duration,
    shutdown: &Shutdown,
) -> Vec<Arc<dyn EventHandler>> {
    vec![
        Arc::new(HistoryHandler::new(db.clone(), shutdown)),
        Arc::new(CacheHandler::new(cache.clone(), db.clone(), cache_ttl)),
    ]
}

/// One effect of events. Effects are idempotent and commute: batches come in any order, and any of them again.
#[async_trait]
pub trait EventHandler: Send + Sync + 'static {
    /// The name in metrics, logs and dead letters.
    fn name(&self) -> &'static str;

    /// Makes the effect of the whole batch durable, or fails as a whole.
    ///
    /// A batch that fails by an event's fault is given again event by event, so one bad event costs only itself.
    /// Events of one batch may repeat.
    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError>;
}

/// An event as a handler gets it.
#[derive(Clone, Debug)]
pub struct HandlerEvent {
    /// What happened.
    pub event: Arc<Event>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When this process received it.
    pub received_at: OffsetDateTime,
}

impl HandlerEvent {
    /// How long after it happened it was received; zero where clocks disagree.
    pub fn age(&self) -> Duration {
        Duration::try_from(self.received_at - self.event.time).unwrap_or_default()
    }
}

/// Why a handler did not do its work: who is at fault decides what follows.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Something it needs is down. No event's fault: the batch is held and tried again, and no attempt counts.
    #[error("a dependency is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// It failed and may succeed when tried again.
    #[error("failed")]
    Transient(#[source] Box<dyn Error + Send + Sync>),
    /// It can never succeed.
    #[error("refused")]
    Permanent(#[source] Box<dyn Error + Send + Sync>),
}

impl From<DbError> for HandlerError {
    fn from(error: DbError) -> Self {
        Arc::new(error).into()
    }
}

/// Of a failure that several share.
impl From<Arc<DbError>> for HandlerError {
    fn from(error: Arc<DbError>) -> Self {
        let fault = match error.as_ref() {
            // Also a deadlock, of which each try may be the victim again: it is no event's fault.
            DbError::Unavailable(_) | DbError::Lost(_) | DbError::Busy(_) => Fault::Server,
            DbError::Refused(_) => fault(error.code().as_deref()),
        };
        match fault {
            Fault::Server => Self::Unavailable(error.into()),
            Fault::Moment => Self::Transient(error.into()),
            Fault::Data => Self::Permanent(error.into()),
        }
    }
}

/// Whose fault it is that a statement was refused.
enum Fault {
    Server,
    Moment,
    Data,
}

/// By the classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn fault(code: Option<&str>) -> Fault {
    match code.and_then(|code| code.get(..2)) {
        // Data exceptions, constraints, check options, limits of the program; or a value that cannot be encoded.
        Some("21" | "22" | "23" | "44" | "54") | None => Fault::Data,
        // The state of the transaction, rights, missing tables and databases, an operator's intervention, and what the server calls
        // its own faults.
        Some("25" | "28" | "3D" | "3F" | "42" | "57" | "F0" | "XX") => Fault::Server,
        // What an operator's own trigger may raise, for example.
        Some(_) => Fault::Moment,
    }
}
