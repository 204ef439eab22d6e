//! Publishes events again, patiently and at a bounded rate.

use std::time::Duration;

use anyhow::{Context as _, bail};
use shared::{
    broker::{BrokerConfig, EventSink, PublishOutcome, connect_sink},
    domain::event::Envelope,
    platform::backoff::Backoff,
};
use tokio::time::Instant;

/// Events in one go, as the relay does it.
const BATCH: u32 = 500;
/// How often an event is offered before the command gives up.
const OFFERS: u32 = 8;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// A sink, and how fast to use it.
pub(super) struct Publisher {
    sink: Box<dyn EventSink>,
    /// Events a second.
    rate: Option<u32>,
    started: Instant,
    sent: u32,
}

/// What became of an event.
pub(super) enum Published {
    /// The broker has it.
    Confirmed,
    /// The broker refuses it for good.
    Rejected(String),
}

impl Publisher {
    /// Connects.
    pub(super) async fn connect(config: &BrokerConfig, rate: Option<u32>) -> anyhow::Result<Self> {
        let sink = connect_sink(config).await.context("cannot publish")?;
        Ok(Self { sink, rate, started: Instant::now(), sent: 0 })
    }

    /// How many to give at a time; with a rate, a tenth of a second's worth.
    pub(super) fn batch(&self) -> i64 {
        self.rate.map_or(BATCH, |rate| (rate / 10).clamp(1, BATCH)).into()
    }

    /// Publishes a batch, when its turn has come, and answers for each event in order.
    pub(super) async fn publish(&mut self, batch: &[Envelope]) -> anyhow::Result<Vec<Published>> {
        self.wait_turn(batch.len()).await;
        let mut answers: Vec<Option<Published>> = batch.iter().map(|_| None).collect();
        let mut failure = None;
        for offer in 1..=OFFERS {
            let open: Vec<usize> = (0..batch.len()).filter(|at| answers[*at].is_none()).collect();
            let offered: Vec<Envelope> = open.iter().map(|at| batch[*at].clone()).collect();
            for (at, outcome) in open.into_iter().zip(self.sink.republish(&offered).await) {
                match outcome {
                    PublishOutcome::Confirmed => answers[at] = Some(Published::Confirmed),
                    PublishOutcome::Rejected(reason) => answers[at] = Some(Published::Rejected(reason)),
                    PublishOutcome::Retry(error) => failure = Some(error),
                }
            }
            if answers.iter().all(Option::is_some) {
                return Ok(answers.into_iter().flatten().collect());
            }
            tokio::time::sleep(BACKOFF.delay(offer)).await;
        }
        match failure {
            Some(error) => Err(error).context("the broker did not take the events"),
            None => bail!("the broker did not answer for every event"),
        }
    }

    /// Disconnects.
    pub(super) async fn close(self) {
        self.sink.close().await;
    }

    async fn wait_turn(&mut self, events: usize) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs(1).mul_f64(f64::from(self.sent) / f64::from(rate));
            tokio::time::sleep_until(self.started + due).await;
        }
        self.sent = self.sent.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
    }
}
