//! One batch, from its receipt to its settlement.

use std::{sync::Arc, time::Instant};

use futures_util::future::join_all;
use shared::{
    broker::{Delivery, Settlement},
    domain::event::{Event, find_tenant},
    platform::db::DbError,
};
use time::OffsetDateTime;

use super::{
    consume::Consumer,
    outcome::{BatchSummary, Failure, Outcome},
    telemetry::{self, EventRecord, EventStatus, Finished, Meters},
};
use crate::{dead_letters::NewDeadLetter, errors::chain, handlers::HandlerEvent, store::dead_letters};

/// An event that was delivered more than this many times its maximum of attempts becomes a dead letter without another
/// attempt: each time the process ended before there was an outcome, and the event itself may be the reason.
const ATTEMPTS_FACTOR: u32 = 3;

/// A delivery on its way through the handlers.
struct Item {
    delivery: Delivery,
    /// `None` if the body cannot be read.
    event: Option<Arc<Event>>,
    outcome: Outcome,
}

impl Consumer {
    /// Handles a batch and settles it.
    pub(super) async fn process_batch(&self, deliveries: Vec<Delivery>) -> BatchSummary {
        let mut summary = BatchSummary { received: deliveries.len(), ..BatchSummary::default() };
        if deliveries.is_empty() {
            return summary;
        }
        let started = Instant::now();
        let received_at = self.clock.now();
        let meters = Meters::of(self.source.system());
        telemetry::record_received(self.source.system(), &deliveries);
        let mut items: Vec<Item> = deliveries.into_iter().map(parse_delivery).collect();
        self.call_handlers(&mut items, received_at).await;

        let finished = self.finished_since(started);
        let mut settlements = Vec::with_capacity(items.len());
        let mut dead = Vec::new();
        for item in items {
            let attempt = item.delivery.attempt;
            let status = match &item.outcome {
                Outcome::Done => EventStatus::Handled,
                Outcome::Interrupted => EventStatus::HandedBack,
                Outcome::Failed(failure) if failure.permanent || attempt >= self.settings.max_attempts => {
                    dead.push((item.delivery, item.event, failure.clone()));
                    continue;
                }
                Outcome::Failed(_) => EventStatus::Retried,
            };
            let event = item.event.as_deref();
            self.record_event(&item.delivery, event, item.outcome.failure(), status, finished, &meters);
            match status {
                EventStatus::Handled => {
                    summary.handled += 1;
                    settlements.push(item.delivery.ack());
                }
                EventStatus::Retried => {
                    summary.retried += 1;
                    settlements.push(item.delivery.retry(self.settings.retry.delay(attempt)));
                }
                EventStatus::HandedBack | EventStatus::DeadLettered => summary.handed_back += 1,
            }
        }
        // These first: storing dead letters may have to wait for PostgreSQL.
        self.settle(settlements).await;
        for (delivery, event, failure) in dead {
            let event = event.as_deref();
            let is_stored = self.store_dead_letter(&delivery, event, &failure).await;
            let status = if is_stored { EventStatus::DeadLettered } else { EventStatus::HandedBack };
            let finished = self.finished_since(started);
            self.record_event(&delivery, event, Some(&failure), status, finished, &meters);
            if is_stored {
                summary.dead_lettered += 1;
                self.settle(vec![delivery.ack()]).await;
            } else {
                summary.handed_back += 1;
            }
        }
        summary
    }

    /// Passes every event to every handler, all handlers at the same time. The worst outcome of an event decides.
    async fn call_handlers(&self, items: &mut [Item], received_at: OffsetDateTime) {
        let most_attempts = self.settings.max_attempts.saturating_mul(ATTEMPTS_FACTOR);
        let mut handled = Vec::with_capacity(items.len());
        let mut events = Vec::with_capacity(items.len());
        for item in items.iter_mut() {
            let attempt = item.delivery.attempt;
            let Some(event) = &item.event else { continue };
            if attempt > most_attempts {
                let reason = format!("{attempt} attempts ended without an outcome");
                item.outcome = Outcome::Failed(Failure::permanent("consumer", reason));
                continue;
            }
            events.push(HandlerEvent { event: Arc::clone(event), attempt, received_at });
            handled.push(item);
        }
        let outcomes = join_all(self.handlers.iter().map(|handler| self.dispatch(handler, &events))).await;
        for outcomes in outcomes {
            for (item, outcome) in handled.iter_mut().zip(outcomes) {
                item.outcome = std::mem::replace(&mut item.outcome, Outcome::Done).worse(outcome);
            }
        }
    }

    /// Commits a dead letter, however long PostgreSQL is down. `false` if shutdown begins first.
    async fn store_dead_letter(&self, delivery: &Delivery, event: Option<&Event>, failure: &Failure) -> bool {
        let system = self.source.system();
        let tenant = event.map(Event::tenant).or_else(|| find_tenant(&delivery.body)).unwrap_or_default();
        let letter = NewDeadLetter {
            event,
            tenant,
            body: &delivery.body,
            source: failure.source,
            reason: &failure.reason,
            attempts: i32::try_from(delivery.attempt).unwrap_or(i32::MAX),
            broker: system.as_str(),
        };
        let mut tries = 0;
        let mut held = None;
        loop {
            match self.insert_dead_letter(&letter).await {
                Ok(()) => {
                    telemetry::log_released_batch("dead_letters", tries);
                    telemetry::count_dead_letter(system, failure.source);
                    return true;
                }
                // Whatever the reason is, there is no other place for the event: it is held until it can be stored.
                Err(error) => {
                    tries += 1;
                    self.hold_batch(&mut held, "dead_letters", chain(&error), tries);
                    if !self.pause(self.settings.hold.delay(tries)).await {
                        return false;
                    }
                }
            }
        }
    }

    async fn insert_dead_letter(&self, letter: &NewDeadLetter<'_>) -> Result<(), DbError> {
        self.db
            .run_once(|mut db| async move { dead_letters::insert_dead_letter(&mut db, letter).await })
            .await
    }

    async fn settle(&self, settlements: Vec<Settlement>) {
        if settlements.is_empty() {
            return;
        }
        // An event that is not settled comes again and changes nothing.
        if let Err(error) = self.source.settle(settlements).await {
            telemetry::record_settle_failure(self.source.system(), &error);
        }
    }

    fn finished_since(&self, started: Instant) -> Finished {
        Finished { took: started.elapsed(), at: self.clock.now() }
    }

    fn record_event(
        &self,
        delivery: &Delivery,
        event: Option<&Event>,
        failure: Option<&Failure>,
        status: EventStatus,
        finished: Finished,
        meters: &Meters,
    ) {
        let system = self.source.system();
        EventRecord { system, event, attempt: delivery.attempt, status, failure, finished }.record(meters);
    }
}

fn parse_delivery(delivery: Delivery) -> Item {
    let (event, outcome) = match Event::read(&delivery.body) {
        Ok(event) => (Some(Arc::new(event)), Outcome::Done),
        Err(error) => (None, Outcome::Failed(Failure::permanent("parse", chain(&error)))),
    };
    Item { delivery, event, outcome }
}
