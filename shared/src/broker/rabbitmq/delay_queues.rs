//! Publishing to the delay queues, in which messages wait for their next attempt.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use lapin::{Acker, BasicProperties};
use tokio::sync::Mutex;

use super::{
    RPC_TIMEOUT, RabbitMqOptions, SYSTEM,
    delay::Delay,
    publisher::{Outgoing, publish_all},
    supervisor::Supervisor,
    topology,
};
use crate::broker::BrokerError;

/// A copy on its way to a delay queue.
pub(super) struct DelayedCopy {
    pub(super) acker: Acker,
    pub(super) delay: Delay,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

/// Publishes to the delay queues, one batch at a time.
#[derive(Debug)]
pub(super) struct DelayQueues {
    options: RabbitMqOptions,
    known: Mutex<KnownQueues>,
}

/// The delay queues that this process knows to exist.
#[derive(Debug, Default)]
struct KnownQueues {
    /// The session that `declared` is about.
    session: u64,
    declared: BTreeSet<Delay>,
    used: BTreeSet<Delay>,
}

impl DelayQueues {
    pub(super) fn new(options: RabbitMqOptions) -> Self {
        Self { options, known: Mutex::default() }
    }

    /// The delay queues that this process has used.
    pub(super) async fn used(&self) -> Vec<Delay> {
        self.known.lock().await.used.iter().copied().collect()
    }

    /// Publishes copies to their delay queues; returns for each whether the broker has stored it.
    pub(super) async fn publish(&self, supervisor: &Supervisor, copies: &[DelayedCopy]) -> Vec<bool> {
        match self.try_publish(supervisor, copies).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(error.message = %error, "RabbitMQ: events could not be published to their delay queues");
                vec![false; copies.len()]
            }
        }
    }

    async fn try_publish(
        &self,
        supervisor: &Supervisor,
        copies: &[DelayedCopy],
    ) -> Result<Vec<bool>, BrokerError> {
        let mut known = self.known.lock().await;
        let Some(session) = supervisor.session(Duration::ZERO).await? else {
            return Err(BrokerError::unavailable(SYSTEM, "the source is closed"));
        };
        if known.session != session.number {
            known.session = session.number;
            known.declared.clear();
        }
        for copy in copies {
            if !known.declared.contains(&copy.delay) {
                let declare = topology::declare_delay(&session.publishing, &self.options, copy.delay);
                let declared = session.run_limited(RPC_TIMEOUT, declare).await?;
                declared.map_err(|error| super::set_up_error(&error)).inspect_err(|_| session.give_up())?;
                known.declared.insert(copy.delay);
                known.used.insert(copy.delay);
            }
        }
        let messages = copies.iter().map(|copy| Outgoing {
            exchange: "",
            routing_key: copy.delay.queue(&self.options.queue),
            body: &copy.body,
            properties: copy.properties.clone(),
        });
        let publish = publish_all(&session.publishing, messages.collect());
        let answers = session.run_limited(RPC_TIMEOUT, publish).await?;
        if answers.iter().any(Result::is_err) {
            // The queue may have been deleted: the next session declares it again.
            session.give_up();
        }
        Ok(answers.into_iter().map(|answer| answer.is_ok()).collect())
    }
}
