//! RabbitMQ: a durable topic exchange and quorum queues.
//!
//! What holds here, and how:
//!
//! - **Confirmed** means that the broker has confirmed the message, which for a quorum queue is when a majority of its
//!   replicas has it on disk, and that it went to a queue: messages are `mandatory`, and one that comes back
//!   as unroutable, or that the broker refuses (`nack`), is [`Retry`](super::PublishOutcome::Retry).
//! - **Order**: a queue hands out in the order of publishing. Retried and requeued messages come later than their
//!   neighbours, and two consumers run side by side.
//! - **Attempts** are the queue's own delivery count plus those that were made before a `retry`, which travel in the
//!   header `x-attempts`.
//! - **Kept**: what a consumer holds is its own as long as its connection lives; RabbitMQ requeues it at once when the
//!   connection ends. The server's `consumer_timeout` (30 minutes unless set otherwise) bounds how long.
//! - **`retry(after)`** publishes a copy to a delay queue, whose messages live for a fixed time and are then
//!   dead-lettered back, and acknowledges the original once the copy is confirmed. Delay queues exist for 125 ms and each
//!   doubling up to 17 minutes: an event waits for between `after` and twice `after`, at least 125 ms and at most
//!   17 minutes. A crash between the two leaves a duplicate.
//! - **Dead letters**: a message that was delivered more often than [`RabbitMqOptions::delivery_limit`], which the
//!   worker's own bound on attempts should prevent, goes to the dead-letter queue, at least once.
//! - **Published at** is the publisher's clock in whole seconds: the broker does not tell.
//! - **The backlog** is what is ready, what waits in the delay queues that this process has used, and what this process
//!   holds. AMQP does not tell what other consumers hold, nor any age.
//! - The topology is declared with each connection, so a deleted queue comes back; what was in it does not. An existing
//!   queue or exchange of the same name and other settings is a
//!   [`Misconfigured`](super::BrokerError::Misconfigured).

mod delay;
mod delay_queues;
mod publisher;
mod sink;
mod source;
mod supervisor;
#[cfg(test)]
pub(super) mod tests;
mod topology;

use std::time::Duration;

use lapin::ErrorKind;
use secrecy::SecretString;

use super::{BrokerError, EventSystem};

pub use sink::RabbitMqSink;
pub use source::RabbitMqSource;

/// Where the events are.
#[derive(Clone, Debug)]
pub struct RabbitMqOptions {
    /// Address, credentials and virtual host.
    pub url: SecretString,
    /// The topic exchange that events are published to. The routing key is the event's type.
    pub exchange: String,
    /// The queue of the workers. Its delay queues are called `NAME.delay.MILLISECONDS`.
    pub queue: String,
    /// The exchange and the queue of messages that were delivered too often.
    pub dead_letters: String,
    /// After how many returns to the queue a message goes to the dead letters: well above the attempts that the worker
    /// makes, because this limit is for messages that kill the worker.
    pub delivery_limit: u32,
}

impl RabbitMqOptions {
    /// The settings of production.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            exchange: "orders.events".to_owned(),
            queue: "orders.history".to_owned(),
            dead_letters: "orders.dead".to_owned(),
            delivery_limit: 20,
        }
    }
}

const SYSTEM: EventSystem = EventSystem::RabbitMq;

/// How long a call to the broker can take before the connection counts as dead.
const RPC_TIMEOUT: Duration = Duration::from_secs(10);

/// A failure on a connection that has been set up.
fn broker_error(error: &lapin::Error) -> BrokerError {
    BrokerError::unavailable(SYSTEM, error)
}

/// A failure while connecting or declaring: an operator must act on a refusal of the broker.
fn set_up_error(error: &lapin::Error) -> BrokerError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return broker_error(error) };
    let what_to_do = match refusal.get_id() {
        403 => "check the user, its password and its permissions",
        406 => {
            "a queue or exchange of this name exists with other settings: delete it once it is empty, or use another virtual host"
        }
        402 | 530 => "check the virtual host and the user's access to it",
        540 => {
            "the server is too old for quorum queues with at-least-once dead-lettering: 3.10 or newer is needed"
        }
        _ => return broker_error(error),
    };
    BrokerError::misconfigured(SYSTEM, format!("{}; {what_to_do}", refusal.get_message()))
}
