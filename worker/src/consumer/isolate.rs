//! Passes events to one handler so that a bad event fails alone, and an outage costs nothing but time.

use std::{error::Error, sync::Arc, time::Instant};

use futures_util::stream::{self, StreamExt as _};
use tokio_util::task::AbortOnDropHandle;

use super::{
    consume::Consumer,
    held::HeldBatch,
    outcome::{Failure, Outcome},
    spans::HandlerSpans,
    telemetry,
};
use crate::{
    errors::{chain, storable},
    handlers::{EventHandler, HandlerError, HandlerEvent},
};

/// How many events of a failed batch are tried alone at the same time.
const CONCURRENT_SINGLES: usize = 8;

impl Consumer {
    /// Passes events to `handler`, and returns the outcome of each.
    pub(super) async fn dispatch(
        &self,
        handler: &Arc<dyn EventHandler>,
        events: &[HandlerEvent],
    ) -> Vec<Outcome> {
        if events.is_empty() {
            return Vec::new();
        }
        match self.call_until_available(handler, events.into()).await {
            Outcome::Failed(_) if events.len() > 1 => self.isolate(handler, events).await,
            outcome => vec![outcome; events.len()],
        }
    }

    /// Passes each event alone, to find out which of them is at fault.
    async fn isolate(&self, handler: &Arc<dyn EventHandler>, events: &[HandlerEvent]) -> Vec<Outcome> {
        let singles: Vec<_> =
            events.iter().map(|event| self.call_until_available(handler, [event.clone()].into())).collect();
        stream::iter(singles).buffered(CONCURRENT_SINGLES).collect().await
    }

    /// Calls the handler again until its dependencies are available, however long that takes.
    async fn call_until_available(
        &self,
        handler: &Arc<dyn EventHandler>,
        events: Arc<[HandlerEvent]>,
    ) -> Outcome {
        let mut tries = 0;
        let mut held: Option<HeldBatch> = None;
        loop {
            let started = Instant::now();
            let spans = HandlerSpans::begin(handler.name(), &events);
            let result = self.call_handler(handler, &events).await;
            if result.is_err() {
                spans.record_error();
            }
            drop(spans);
            telemetry::record_handler_call(handler.name(), self.source.system(), started.elapsed());
            let (error, permanent) = match result {
                Ok(()) => {
                    telemetry::log_released_batch(handler.name(), tries);
                    return Outcome::Done;
                }
                Err(HandlerError::Unavailable(error)) => {
                    tries += 1;
                    self.hold_batch(&mut held, handler.name(), chain(error.as_ref()), tries);
                    if self.pause(self.settings.hold.delay(tries)).await {
                        continue;
                    }
                    return Outcome::Interrupted;
                }
                Err(HandlerError::Transient(error)) => (error, false),
                Err(HandlerError::Permanent(error)) => (error, true),
            };
            return Outcome::Failed(Failure {
                source: handler.name(),
                reason: chain(error.as_ref()),
                permanent,
            });
        }
    }

    /// Lists a batch as held, if it is not listed yet, with the error of its last try.
    pub(super) fn hold_batch(
        &self,
        held: &mut Option<HeldBatch>,
        part: &'static str,
        error: String,
        tries: u32,
    ) {
        telemetry::log_held_batch(part, &error, tries);
        match held {
            Some(held) => held.set_error(error),
            None => *held = Some(self.held.add(part, error)),
        }
    }

    /// Calls the handler once, in its own task: a panic ends only the task, and a call that does not return is cancelled.
    async fn call_handler(
        &self,
        handler: &Arc<dyn EventHandler>,
        events: &Arc<[HandlerEvent]>,
    ) -> Result<(), HandlerError> {
        let (handler, events) = (Arc::clone(handler), Arc::clone(events));
        let task = AbortOnDropHandle::new(tokio::spawn(async move { handler.handle(&events).await }));
        match tokio::time::timeout(self.settings.handler_deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(HandlerError::Transient(panic_error(error))),
            Err(_) => {
                let deadline = self.settings.handler_deadline;
                Err(HandlerError::Transient(format!("the handler did not answer within {deadline:?}").into()))
            }
        }
    }
}

fn panic_error(error: tokio::task::JoinError) -> Box<dyn Error + Send + Sync> {
    match error.try_into_panic() {
        Ok(payload) => {
            let message = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "without a message".to_owned());
            format!("the handler panicked: {}", storable(&message)).into()
        }
        Err(error) => error.into(),
    }
}
