//! Publishes events again, with retries and at a limited rate.

use std::time::Duration;

use anyhow::{Context as _, bail};
use shared::{
    broker::{BrokerConfig, EventSink, PublishOutcome, connect_sink},
    domain::event::Envelope,
    platform::backoff::Backoff,
};
use tokio::time::Instant;

/// The most events of a batch, as in the relay.
const MAX_BATCH: u32 = 500;
/// How often an event is sent before the command gives up.
const MAX_ATTEMPTS: u32 = 8;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// A sink, and how fast to use it.
pub(super) struct Publisher {
    sink: Box<dyn EventSink>,
    /// Events a second.
    rate: Option<u32>,
    started: Instant,
    sent: u32,
}

/// What the broker did with an event.
pub(super) enum Published {
    /// It confirmed the event.
    Confirmed,
    /// It refused the event for good, for this reason.
    Rejected(String),
}

impl Publisher {
    /// Connects to the broker. `rate` limits the events a second.
    pub(super) async fn connect(config: &BrokerConfig, rate: Option<u32>) -> anyhow::Result<Self> {
        let sink = connect_sink(config).await.context("cannot publish")?;
        Ok(Self { sink, rate, started: Instant::now(), sent: 0 })
    }

    /// How many events to publish in a batch; with a rate, those of a tenth of a second.
    pub(super) fn batch_size(&self) -> i64 {
        self.rate.map_or(MAX_BATCH, |rate| (rate / 10).clamp(1, MAX_BATCH)).into()
    }

    /// Publishes a batch as soon as the rate allows it. Returns an outcome for each event, in order.
    pub(super) async fn publish_batch(&mut self, batch: &[Envelope]) -> anyhow::Result<Vec<Published>> {
        self.wait_turn(batch.len()).await;
        let mut outcomes: Vec<Option<Published>> = batch.iter().map(|_| None).collect();
        let mut failure = None;
        for attempt in 1..=MAX_ATTEMPTS {
            let open: Vec<usize> = (0..batch.len()).filter(|at| outcomes[*at].is_none()).collect();
            let offered: Vec<Envelope> = open.iter().map(|at| batch[*at].clone()).collect();
            for (at, outcome) in open.into_iter().zip(self.sink.republish(&offered).await) {
                match outcome {
                    PublishOutcome::Confirmed => outcomes[at] = Some(Published::Confirmed),
                    PublishOutcome::Rejected(reason) => outcomes[at] = Some(Published::Rejected(reason)),
                    PublishOutcome::Retry(error) => failure = Some(error),
                }
            }
            if outcomes.iter().all(Option::is_some) {
                return Ok(outcomes.into_iter().flatten().collect());
            }
            tokio::time::sleep(BACKOFF.delay(attempt)).await;
        }
        match failure {
            Some(error) => {
                Err(error).context("the broker does not take the events; check it and repeat the command")
            }
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
