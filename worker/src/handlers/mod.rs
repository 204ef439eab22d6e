//! What is done with events. The consumer knows only this trait; only handlers know orders.

pub mod cache;
pub mod history;

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use shared::event::Event;
use time::OffsetDateTime;

use crate::store::StoreError;

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

impl From<StoreError> for HandlerError {
    fn from(error: StoreError) -> Self {
        Arc::new(error).into()
    }
}

/// Of a failure that several share.
impl From<Arc<StoreError>> for HandlerError {
    fn from(error: Arc<StoreError>) -> Self {
        match *error {
            StoreError::Unavailable(_) | StoreError::TimedOut(_) => Self::Unavailable(error.into()),
            StoreError::Conflict(_) => Self::Transient(error.into()),
            StoreError::Refused(_) => Self::Permanent(error.into()),
        }
    }
}
