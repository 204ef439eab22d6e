//! One batch from its receipt to its settlement.

use std::{sync::Arc, time::Instant};

use futures_util::future::join_all;
use shared::{
    broker::{Delivery, Settlement},
    domain::event::Event,
    platform::db::DbError,
};
use time::OffsetDateTime;

use super::{
    Consumer,
    guard::{Failure, Verdict},
    observe::{self, Ended, Meters, Outcome},
};
use crate::{dead_letters::NewDeadLetter, errors::chain, handlers::HandlerEvent, store::dead_letters};

/// So many times its attempts, and an event is set aside without another: each time the process ended before there was
/// an outcome, and the event itself may be why.
const FATAL: u32 = 3;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events received.
    pub received: usize,
    /// Acknowledged with their effects durable.
    pub handled: usize,
    /// To come again.
    pub retried: usize,
    /// Set aside and acknowledged.
    pub dead_lettered: usize,
    /// Left for another worker, because this one stops.
    pub handed_back: usize,
}

/// A delivery on its way through the handlers.
struct Item {
    delivery: Delivery,
    /// `None` where it could not be read.
    event: Option<Arc<Event>>,
    verdict: Verdict,
}

impl Consumer {
    /// Sees a batch through.
    pub(super) async fn process(&self, deliveries: Vec<Delivery>) -> Summary {
        let mut summary = Summary { received: deliveries.len(), ..Summary::default() };
        if deliveries.is_empty() {
            return summary;
        }
        let started = Instant::now();
        let received_at = self.clock.now();
        let meters = Meters::of(self.source.system());
        observe::received(self.source.system(), &deliveries);
        let mut items: Vec<Item> = deliveries.into_iter().map(read).collect();
        self.handle(&mut items, received_at).await;

        let ended = Ended { took: started.elapsed(), at: self.clock.now() };
        let mut settlements = Vec::with_capacity(items.len());
        let mut dead = Vec::new();
        for item in items {
            let attempt = item.delivery.attempt;
            let outcome = match &item.verdict {
                Verdict::Done => {
                    summary.handled += 1;
                    Outcome::Handled
                }
                Verdict::Abandoned => {
                    summary.handed_back += 1;
                    Outcome::HandedBack
                }
                Verdict::Failed(failure) if failure.permanent || attempt >= self.settings.max_attempts => {
                    dead.push((item.delivery, item.event, failure.clone()));
                    continue;
                }
                Verdict::Failed(_) => {
                    summary.retried += 1;
                    Outcome::Retried
                }
            };
            self.tell(&item.delivery, item.event.as_deref(), &item.verdict, outcome, ended, &meters);
            match outcome {
                Outcome::Handled => settlements.push(item.delivery.ack()),
                Outcome::Retried => {
                    let after = self.settings.retry.delay(attempt);
                    settlements.push(item.delivery.retry(after));
                }
                Outcome::HandedBack | Outcome::DeadLettered => {}
            }
        }
        // First what is decided: setting aside may have to wait for PostgreSQL.
        self.settle(settlements).await;
        for (delivery, event, failure) in dead {
            let set_aside = self.set_aside(&delivery, event.as_deref(), &failure).await;
            let outcome = if set_aside { Outcome::DeadLettered } else { Outcome::HandedBack };
            let ended = Ended { took: started.elapsed(), at: self.clock.now() };
            self.tell(&delivery, event.as_deref(), &Verdict::Failed(failure), outcome, ended, &meters);
            if set_aside {
                summary.dead_lettered += 1;
                self.settle(vec![delivery.ack()]).await;
            } else {
                summary.handed_back += 1;
            }
        }
        summary
    }

    /// Every event to every handler, the handlers side by side; an event's verdict is the worst of theirs.
    async fn handle(&self, items: &mut [Item], received_at: OffsetDateTime) {
        let fatal = self.settings.max_attempts.saturating_mul(FATAL);
        let mut given = Vec::with_capacity(items.len());
        let mut events = Vec::with_capacity(items.len());
        for item in items.iter_mut() {
            let attempt = item.delivery.attempt;
            let Some(event) = &item.event else { continue };
            if attempt > fatal {
                item.verdict = failed("consumer", format!("{attempt} attempts ended without an outcome"));
                continue;
            }
            events.push(HandlerEvent { event: Arc::clone(event), attempt, received_at });
            given.push(item);
        }
        let verdicts = join_all(self.handlers.iter().map(|handler| self.give(handler, &events))).await;
        for verdicts in verdicts {
            for (item, verdict) in given.iter_mut().zip(verdicts) {
                item.verdict = std::mem::replace(&mut item.verdict, Verdict::Done).worse(verdict);
            }
        }
    }

    /// Commits a dead letter, however long PostgreSQL is down. `false` where the process stops first.
    async fn set_aside(&self, delivery: &Delivery, event: Option<&Event>, failure: &Failure) -> bool {
        let system = self.source.system();
        let letter = NewDeadLetter {
            event,
            body: &delivery.body,
            source: failure.source,
            reason: &failure.reason,
            attempts: i32::try_from(delivery.attempt).unwrap_or(i32::MAX),
            broker: system.as_str(),
        };
        let mut tries = 0;
        let mut held = None;
        loop {
            match self.insert(&letter).await {
                Ok(()) => {
                    observe::batch_went_through("dead_letters", tries);
                    observe::dead_lettered(system, failure.source);
                    return true;
                }
                // Whatever the reason, there is nowhere else to put it: it is kept until it can be.
                Err(error) => {
                    tries += 1;
                    self.hold(&mut held, "dead_letters", chain(&error), tries);
                    if !self.pause(self.settings.hold.delay(tries)).await {
                        return false;
                    }
                }
            }
        }
    }

    async fn insert(&self, letter: &NewDeadLetter<'_>) -> Result<(), DbError> {
        self.db.run_once(|mut db| async move { dead_letters::insert(&mut db, letter).await }).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) {
        if settlements.is_empty() {
            return;
        }
        // What is not settled comes again and changes nothing.
        if let Err(error) = self.source.settle(settlements).await {
            observe::settle_failed(self.source.system(), &error);
        }
    }

    fn tell(
        &self,
        delivery: &Delivery,
        event: Option<&Event>,
        verdict: &Verdict,
        outcome: Outcome,
        ended: Ended,
        meters: &Meters,
    ) {
        let failure = match verdict {
            Verdict::Failed(failure) => Some(failure),
            Verdict::Done | Verdict::Abandoned => None,
        };
        observe::Finished {
            system: self.source.system(),
            event,
            attempt: delivery.attempt,
            outcome,
            failure: failure.map(|failure| (failure.source, failure.reason.as_str())),
            ended,
        }
        .tell(meters);
    }
}

fn read(delivery: Delivery) -> Item {
    let (event, verdict) = match Event::read(&delivery.body) {
        Ok(event) => (Some(Arc::new(event)), Verdict::Done),
        Err(error) => (None, failed("parse", chain(&error))),
    };
    Item { delivery, event, verdict }
}

fn failed(source: &'static str, reason: String) -> Verdict {
    Verdict::Failed(Failure { source, reason, permanent: true })
}
