//! The trait of handlers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use shared::domain::event::Event;
use time::OffsetDateTime;

use super::error::HandlerError;

/// One effect of events. Effects must be idempotent and must commute: batches come in any order, and more than once.
#[async_trait]
pub trait EventHandler: Send + Sync + 'static {
    /// The name in metrics, logs and dead letters.
    fn name(&self) -> &'static str;

    /// Makes the effect of the whole batch durable, or fails as a whole.
    ///
    /// If an event is at fault, the batch is handled again event by event, so that one bad event affects only itself.
    /// An event can be in a batch more than once.
    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError>;
}

/// An event and how it arrived.
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
    /// The time from the change to its receipt; zero if the clocks disagree.
    pub fn age(&self) -> Duration {
        Duration::try_from(self.received_at - self.event.time).unwrap_or_default()
    }
}
