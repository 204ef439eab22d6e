//! Sending messages to wait for their next attempt.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use lapin::{Acker, BasicProperties};
use tokio::sync::Mutex;

use super::{
    RabbitMqOptions, SYSTEM,
    delay::Delay,
    publisher::{Outgoing, publish_all},
    source::PATIENCE,
    supervisor::Supervisor,
    topology,
};
use crate::broker::BrokerError;

/// A copy on its way to a delay queue.
pub(super) struct Waiting {
    pub(super) acker: Acker,
    pub(super) delay: Delay,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

/// Publishes to the delay queues, one batch at a time.
#[derive(Debug)]
pub(super) struct WaitingRoom {
    options: RabbitMqOptions,
    known: Mutex<Delays>,
}

/// The delay queues that this process knows to exist.
#[derive(Debug, Default)]
struct Delays {
    session: u64,
    declared: BTreeSet<Delay>,
    used: BTreeSet<Delay>,
}

impl WaitingRoom {
    pub(super) fn new(options: RabbitMqOptions) -> Self {
        Self { options, known: Mutex::default() }
    }

    /// The delay queues that this process has used.
    pub(super) async fn used(&self) -> Vec<Delay> {
        self.known.lock().await.used.iter().copied().collect()
    }

    /// Sends copies to wait; for each whether it is safe with the broker.
    pub(super) async fn send(&self, supervisor: &Supervisor, copies: &[Waiting]) -> Vec<bool> {
        match self.try_send(supervisor, copies).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(error.message = %error, "RabbitMQ: events could not be sent to wait");
                vec![false; copies.len()]
            }
        }
    }

    async fn try_send(&self, supervisor: &Supervisor, copies: &[Waiting]) -> Result<Vec<bool>, BrokerError> {
        let mut delays = self.known.lock().await;
        let Some(session) = supervisor.session(Duration::ZERO).await? else {
            return Err(BrokerError::unavailable(SYSTEM, "the source is closed"));
        };
        if delays.session != session.number {
            delays.session = session.number;
            delays.declared.clear();
        }
        for copy in copies {
            if !delays.declared.contains(&copy.delay) {
                let declare = topology::declare_delay(&session.publishing, &self.options, copy.delay);
                let declared = session.run(PATIENCE, declare).await?;
                declared.map_err(|error| super::set_up_error(&error)).inspect_err(|_| session.give_up())?;
                delays.declared.insert(copy.delay);
                delays.used.insert(copy.delay);
            }
        }
        let messages = copies.iter().map(|copy| Outgoing {
            exchange: "",
            routing_key: copy.delay.queue(&self.options.queue),
            body: &copy.body,
            properties: copy.properties.clone(),
        });
        let publish = publish_all(&session.publishing, messages.collect());
        let answers = session.run(PATIENCE, publish).await?;
        if answers.iter().any(Result::is_err) {
            // The queue may have been deleted: the next session declares it again.
            session.give_up();
        }
        Ok(answers.into_iter().map(|answer| answer.is_ok()).collect())
    }
}
