//! What is done with events: each handler a file. Handlers know orders; the consumer knows only the trait.
//! Fetching, retries and dead letters are in `consumer`.

pub mod cache;
mod error;
mod event_handler;
pub mod history;

use std::{sync::Arc, time::Duration};

use shared::{
    cache::Cache,
    platform::{db::DbPool, shutdown::Shutdown},
};

use self::{cache::CacheHandler, history::HistoryHandler};
pub use self::{
    error::HandlerError,
    event_handler::{EventHandler, HandlerEvent},
};

/// All handlers: `worker run` passes each event to every one, and `worker replay --handler` names one of them.
pub fn all_handlers(
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
