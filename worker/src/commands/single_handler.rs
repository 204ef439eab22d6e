//! Has one handler handle events, without the broker and the other handlers.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use shared::{
    domain::{
        clock::Clock,
        event::{Envelope, Event},
    },
    platform::{backoff::Backoff, db::DbPool, shutdown::Shutdown},
};

use super::connect::connect_cache;
use crate::{
    config::WorkerConfig,
    errors::chain,
    handlers::{self, EventHandler, HandlerError, HandlerEvent},
};

/// Attempts after which the command gives up a batch, or an event counts as refused.
const MAX_ATTEMPTS: u32 = 8;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// One of the handlers.
pub(super) struct SingleHandler {
    handler: Arc<dyn EventHandler>,
}

impl SingleHandler {
    /// How many events to handle in a batch, as in the consumer.
    pub(super) const BATCH: i64 = 250;

    /// Finds the handler of this name.
    pub(super) fn find_by_name(name: &str, db: &DbPool, config: &WorkerConfig) -> anyhow::Result<Self> {
        let handlers =
            handlers::all_handlers(db, &connect_cache(config)?, config.cache_ttl, &Shutdown::new());
        let names: Vec<&str> = handlers.iter().map(|handler| handler.name()).collect();
        let unknown = anyhow!("there is no handler {name:?}; choose one of {}", names.join(", "));
        let handler = handlers.into_iter().find(|handler| handler.name() == name).ok_or(unknown)?;
        Ok(Self { handler })
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.handler.name()
    }

    /// Handles events, and returns a line for each that the handler refused. Fails if a dependency stays unavailable.
    pub(super) async fn handle_events(&self, events: Vec<Envelope>) -> anyhow::Result<Vec<String>> {
        let mut refusals = Vec::new();
        let mut batch = Vec::with_capacity(events.len());
        for envelope in events {
            match Event::read(&envelope.body.into()) {
                Ok(event) => batch.push(HandlerEvent {
                    event: Arc::new(event),
                    // Not the first: a replayed event can replace a cache entry but must not create one.
                    attempt: 2,
                    received_at: Clock::System.now(),
                }),
                Err(error) => refusals.push(describe_refusal(envelope.id, &chain(&error))),
            }
        }
        if self.try_batch(&batch).await?.is_none() {
            return Ok(refusals);
        }
        // An event is at fault: handle each alone to find out which.
        for event in batch {
            let id = event.event.id;
            if let Some(reason) = self.try_batch(&[event]).await? {
                refusals.push(describe_refusal(id, &reason));
            }
        }
        Ok(refusals)
    }

    /// Tries until the handler succeeds, or returns why an event of the batch is at fault.
    async fn try_batch(&self, batch: &[HandlerEvent]) -> anyhow::Result<Option<String>> {
        let mut attempt = 1;
        loop {
            let error = match self.handler.handle(batch).await {
                Ok(()) => return Ok(None),
                Err(error) => error,
            };
            match error {
                HandlerError::Permanent(error) => return Ok(Some(chain(error.as_ref()))),
                HandlerError::Transient(error) if attempt == MAX_ATTEMPTS || batch.len() > 1 => {
                    return Ok(Some(chain(error.as_ref())));
                }
                HandlerError::Unavailable(error) if attempt == MAX_ATTEMPTS => {
                    return Err(anyhow!(error))
                        .with_context(|| format!("a dependency of the handler {} is down", self.name()));
                }
                HandlerError::Transient(_) | HandlerError::Unavailable(_) => {}
            }
            tokio::time::sleep(BACKOFF.delay(attempt)).await;
            attempt += 1;
        }
    }
}

fn describe_refusal(id: uuid::Uuid, reason: &str) -> String {
    format!("event {id} was refused: {reason}")
}
