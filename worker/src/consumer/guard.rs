//! Gives events to one handler so that a bad one costs only itself, and an outage costs nothing but time.

use std::{error::Error, sync::Arc, time::Instant};

use futures_util::stream::{self, StreamExt as _};
use tokio_util::task::AbortOnDropHandle;

use super::{Consumer, held::HeldBatch, observe, traced::Traced};
use crate::{
    errors::{chain, storable},
    handlers::{EventHandler, HandlerError, HandlerEvent},
};

/// Events of a failed batch that are tried by themselves at a time.
const ALONE_AT_A_TIME: usize = 8;

/// What a handler, or all of them, made of one event.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// Its effect is durable.
    Done,
    /// It failed by its own fault.
    Failed(Failure),
    /// The process stops while a dependency is down: another worker shall try.
    Abandoned,
}

/// An event's own failure.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Which part: a handler's name, or `parse`.
    pub(super) source: &'static str,
    pub(super) reason: String,
    /// Trying again cannot help.
    pub(super) permanent: bool,
}

impl Verdict {
    /// Of two handlers' verdicts the one that decides.
    pub(super) fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed(Failure { permanent: false, .. }) => 1,
            Self::Failed(Failure { permanent: true, .. }) => 2,
            Self::Abandoned => 3,
        }
    }
}

impl Consumer {
    /// What `handler` made of each of the events.
    pub(super) async fn give(
        &self,
        handler: &Arc<dyn EventHandler>,
        events: &[HandlerEvent],
    ) -> Vec<Verdict> {
        if events.is_empty() {
            return Vec::new();
        }
        match self.persist(handler, events.into()).await {
            Verdict::Failed(_) if events.len() > 1 => {
                // Some event is at fault: each by itself, to find out which.
                let alone: Vec<_> =
                    events.iter().map(|event| self.persist(handler, [event.clone()].into())).collect();
                stream::iter(alone).buffered(ALONE_AT_A_TIME).collect().await
            }
            verdict => vec![verdict; events.len()],
        }
    }

    /// Calls until the handler has an answer that is about the events, however long a dependency is down.
    async fn persist(&self, handler: &Arc<dyn EventHandler>, events: Arc<[HandlerEvent]>) -> Verdict {
        let mut tries = 0;
        let mut held: Option<HeldBatch> = None;
        loop {
            let started = Instant::now();
            let traced = Traced::begin(handler.name(), &events);
            let answer = self.call(handler, &events).await;
            if answer.is_err() {
                traced.failed();
            }
            drop(traced);
            observe::handler_called(handler.name(), self.source.system(), started.elapsed());
            let (error, permanent) = match answer {
                Ok(()) => {
                    observe::batch_went_through(handler.name(), tries);
                    return Verdict::Done;
                }
                Err(HandlerError::Unavailable(error)) => {
                    tries += 1;
                    self.hold(&mut held, handler.name(), chain(error.as_ref()), tries);
                    if self.pause(self.settings.hold.delay(tries)).await {
                        continue;
                    }
                    return Verdict::Abandoned;
                }
                Err(HandlerError::Transient(error)) => (error, false),
                Err(HandlerError::Permanent(error)) => (error, true),
            };
            return Verdict::Failed(Failure {
                source: handler.name(),
                reason: chain(error.as_ref()),
                permanent,
            });
        }
    }

    /// Holds a batch, once, and takes note of why it was tried in vain.
    pub(super) fn hold(&self, held: &mut Option<HeldBatch>, part: &'static str, error: String, tries: u32) {
        observe::batch_is_held(part, &error, tries);
        match held {
            Some(held) => held.set_error(error),
            None => *held = Some(self.held.hold(part, error)),
        }
    }

    /// One call on a task of its own: a panic ends the task, a hang is cancelled.
    async fn call(
        &self,
        handler: &Arc<dyn EventHandler>,
        events: &Arc<[HandlerEvent]>,
    ) -> Result<(), HandlerError> {
        let (handler, events) = (Arc::clone(handler), Arc::clone(events));
        let task = AbortOnDropHandle::new(tokio::spawn(async move { handler.handle(&events).await }));
        match tokio::time::timeout(self.settings.handler_deadline, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(HandlerError::Transient(panicked(error))),
            Err(_) => {
                let deadline = self.settings.handler_deadline;
                Err(HandlerError::Transient(format!("the handler did not answer within {deadline:?}").into()))
            }
        }
    }
}

fn panicked(error: tokio::task::JoinError) -> Box<dyn Error + Send + Sync> {
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
