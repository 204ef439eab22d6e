//! Gives events to one handler, apart from the broker and from all other handlers.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use shared::{
    domain::{
        clock::Clock,
        event::{Envelope, Event},
    },
    platform::{backoff::Backoff, db::DbPool, shutdown::Shutdown},
};

use super::cache;
use crate::{
    config::WorkerConfig,
    errors::chain,
    handlers::{self, EventHandler, HandlerError, HandlerEvent},
};

/// How often a batch is tried before the command gives up, or an event is before it counts as refused.
const TRIES: u32 = 8;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// A handler and what it runs on.
pub(super) struct SingleHandler {
    handler: Arc<dyn EventHandler>,
}

impl SingleHandler {
    /// How many events to give at a time, as the consumer does.
    pub(super) const BATCH: i64 = 250;

    /// The handler of this name.
    pub(super) fn find(name: &str, db: &DbPool, config: &WorkerConfig) -> anyhow::Result<Self> {
        let handlers = handlers::all(db, &cache(config)?, config.cache_ttl, &Shutdown::new());
        let names: Vec<&str> = handlers.iter().map(|handler| handler.name()).collect();
        let unknown = anyhow!("there is no handler {name:?}: there are {}", names.join(", "));
        let handler = handlers.into_iter().find(|handler| handler.name() == name).ok_or(unknown)?;
        Ok(Self { handler })
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.handler.name()
    }

    /// Has it handle events, and answers a line for each that it refused. Fails if what it needs stays unavailable.
    pub(super) async fn handle(&self, events: Vec<Envelope>) -> anyhow::Result<Vec<String>> {
        let mut refusals = Vec::new();
        let mut batch = Vec::with_capacity(events.len());
        for envelope in events {
            match Event::read(&envelope.body.into()) {
                Ok(event) => batch.push(HandlerEvent {
                    event: Arc::new(event),
                    // Not the first: a replayed event may raise a cache entry but never creates one.
                    attempt: 2,
                    received_at: Clock::System.now(),
                }),
                Err(error) => refusals.push(refusal(envelope.id, &chain(&error))),
            }
        }
        if self.attempt(&batch).await?.is_none() {
            return Ok(refusals);
        }
        // Some event is at fault: each by itself, to find out which.
        for event in batch {
            let id = event.event.id;
            if let Some(reason) = self.attempt(&[event]).await? {
                refusals.push(refusal(id, &reason));
            }
        }
        Ok(refusals)
    }

    /// Tries until the handler succeeds, or answers why an event of the batch is at fault.
    async fn attempt(&self, batch: &[HandlerEvent]) -> anyhow::Result<Option<String>> {
        let mut tries = 1;
        loop {
            let error = match self.handler.handle(batch).await {
                Ok(()) => return Ok(None),
                Err(error) => error,
            };
            match error {
                HandlerError::Permanent(error) => return Ok(Some(chain(error.as_ref()))),
                HandlerError::Transient(error) if tries == TRIES || batch.len() > 1 => {
                    return Ok(Some(chain(error.as_ref())));
                }
                HandlerError::Unavailable(error) if tries == TRIES => {
                    return Err(anyhow!(error))
                        .with_context(|| format!("the handler {} cannot work", self.name()));
                }
                HandlerError::Transient(_) | HandlerError::Unavailable(_) => {}
            }
            tokio::time::sleep(BACKOFF.delay(tries)).await;
            tries += 1;
        }
    }
}

fn refusal(id: uuid::Uuid, reason: &str) -> String {
    format!("event {id} was refused: {reason}")
}
