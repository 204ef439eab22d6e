//! The exchanges and queues, as code. Declaring what exists with the same settings does nothing.

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{RabbitMqOptions, delay::Delay};

/// Declares everything but the delay queues.
pub(super) async fn declare(channel: &Channel, options: &RabbitMqOptions) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (exchange, dead) = (short(&options.exchange), short(&options.dead_letters));
    channel.exchange_declare(exchange.clone(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    channel.exchange_declare(dead.clone(), ExchangeKind::Fanout, durable, FieldTable::default()).await?;
    let bind = QueueBindOptions::default();

    channel.queue_declare(dead.clone(), QueueDeclareOptions::durable(), quorum()).await?;
    channel.queue_bind(dead.clone(), dead, ShortString::default(), bind, FieldTable::default()).await?;

    let queue = short(&options.queue);
    let mut arguments = dead_lettering(&options.dead_letters);
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(options.delivery_limit.into()));
    channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments).await?;
    channel.queue_bind(queue, exchange, "#".into(), bind, FieldTable::default()).await
}

/// Declares one delay queue. They are declared when they are first needed: most never are.
pub(super) async fn declare_delay(
    channel: &Channel,
    options: &RabbitMqOptions,
    delay: Delay,
) -> lapin::Result<()> {
    // Through the default exchange, where the routing key is the name of the queue.
    let mut arguments = dead_lettering("");
    arguments.insert("x-dead-letter-routing-key".into(), long(&options.queue));
    let wait = i64::try_from(delay.duration().as_millis()).unwrap_or(i64::MAX);
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(wait));
    let name = short(&delay.queue(&options.queue));
    channel.queue_declare(name, QueueDeclareOptions::durable(), arguments).await.map(|_| ())
}

/// Replicated and on disk.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), long("quorum"));
    arguments
}

/// A quorum queue that keeps what leaves it until the target queue has confirmed it.
fn dead_lettering(exchange: &str) -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-dead-letter-exchange".into(), long(exchange));
    arguments.insert("x-dead-letter-strategy".into(), long("at-least-once"));
    // At-least-once dead-lettering needs it: dropping the oldest would lose messages.
    arguments.insert("x-overflow".into(), long("reject-publish"));
    arguments
}

pub(super) fn short(text: &str) -> ShortString {
    ShortString::from(text)
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
