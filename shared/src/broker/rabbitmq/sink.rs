//! Publishing to the exchange.

use std::time::Duration;

use async_trait::async_trait;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use tokio::sync::Mutex;

use super::{
    RabbitMqOptions, SYSTEM,
    publisher::{Outgoing, publish_all},
    supervisor::{Session, Supervisor, check_connection},
};
use crate::{
    broker::{BrokerError, EventSink, EventSystem, PublishOutcome, too_large},
    domain::{clock::Clock, event::Envelope},
};

/// How long a batch waits for a connection that is being made.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long a batch may take to be confirmed before the connection counts as dead.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// The header with an event's position.
const POSITION: &str = "position";
/// The delivery mode "persistent" of AMQP.
const PERSISTENT: u8 = 2;

/// Publishes events to the exchange.
#[derive(Debug)]
pub struct RabbitMqSink {
    supervisor: Supervisor,
    exchange: String,
    clock: Clock,
    /// Held by the batch that is using the channel.
    channel: Mutex<()>,
}

impl RabbitMqSink {
    /// Connects and declares the topology. A broker that cannot be reached yet is no error: it is tried again.
    pub async fn connect(options: &RabbitMqOptions) -> Result<Self, BrokerError> {
        let supervisor = Supervisor::start(options.clone(), "sink").await?;
        Ok(Self {
            supervisor,
            exchange: options.exchange.clone(),
            clock: Clock::System,
            channel: Mutex::new(()),
        })
    }

    async fn publish_confirmed(&self, events: &[&Envelope]) -> Result<Vec<Result<(), String>>, BrokerError> {
        let _channel = self.channel.lock().await;
        let Some(session) = self.supervisor.session(CONNECT_WAIT).await? else {
            return Err(BrokerError::unavailable(SYSTEM, "the sink is closed"));
        };
        let seconds = u64::try_from(self.clock.now().unix_timestamp()).unwrap_or(0);
        let messages = events.iter().map(|event| Outgoing {
            exchange: &self.exchange,
            routing_key: event.event_type.clone(),
            body: event.body.as_bytes(),
            properties: BasicProperties::default()
                .with_delivery_mode(PERSISTENT)
                .with_content_type("application/cloudevents+json".into())
                .with_type(event.event_type.as_str().into())
                .with_message_id(event.id.as_hyphenated().to_string().into())
                .with_headers(headers(event))
                .with_timestamp(seconds),
        });
        let messages = messages.collect();
        // If this batch is cancelled, its confirms must not be mistaken for those of the next one.
        let guard = GiveUpUnless { session: &session, done: false };
        let answers =
            session.run_limited(CONFIRM_TIMEOUT, publish_all(&session.publishing, messages)).await?;
        // A returned message means that the topology is gone: a new session declares it again.
        if answers.iter().all(Result::is_ok) {
            guard.done();
        }
        Ok(answers)
    }
}

/// The event's position in the log, for readers that want to notice a gap.
fn headers(event: &Envelope) -> FieldTable {
    let mut headers = FieldTable::default();
    if let Some(position) = event.position {
        headers.insert(POSITION.into(), AMQPValue::LongLongInt(position));
    }
    headers
}

/// Gives the session up unless its batch has succeeded.
struct GiveUpUnless<'a> {
    session: &'a Session,
    done: bool,
}

impl GiveUpUnless<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for GiveUpUnless<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.session.give_up();
        }
    }
}

#[async_trait]
impl EventSink for RabbitMqSink {
    fn system(&self) -> EventSystem {
        SYSTEM
    }

    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        let fitting: Vec<&Envelope> = batch.iter().filter(|event| too_large(event).is_none()).collect();
        let mut answers = match self.publish_confirmed(&fitting).await {
            Ok(answers) => Ok(answers.into_iter()),
            Err(error) => Err(error.to_string()),
        };
        let outcome = |event: &Envelope| {
            if let Some(problem) = too_large(event) {
                return PublishOutcome::Rejected(problem);
            }
            let answer = match &mut answers {
                Ok(answers) => answers.next().unwrap_or_else(|| Err("no answer".to_owned())),
                Err(error) => Err(error.clone()),
            };
            match answer {
                Ok(()) => PublishOutcome::Confirmed,
                Err(message) => PublishOutcome::Retry(BrokerError::unavailable(SYSTEM, message)),
            }
        };
        batch.iter().map(outcome).collect()
    }

    async fn check(&self) -> Result<(), BrokerError> {
        check_connection(&self.supervisor).await
    }

    async fn close(&self) {
        self.supervisor.close().await;
    }
}
