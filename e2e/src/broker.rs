//! The brokers that carry the events, and how each of them loses what it holds.

use redis::aio::MultiplexedConnection;
use serde_json::Value;
use testbed::{PrivateRedis, SqsNamespace, Vhost};

use crate::store::{RedisStore, STREAM};

/// The queue of the workers on RabbitMQ.
const QUEUE: &str = "orders.history";

/// Which broker carries the events, with the resources it needs.
#[derive(Debug)]
pub enum Broker {
    /// Redis Streams, on the system's own Redis.
    RedisStreams,
    /// Redis Streams, on a server of its own beside the system's.
    OwnRedis(Box<PrivateRedis>),
    /// A virtual host of its own.
    RabbitMq(Vhost),
    /// A queue of its own.
    Sqs(SqsNamespace, String),
}

impl Broker {
    /// A Redis server for the stream alone.
    pub async fn own_redis() -> Self {
        Self::OwnRedis(Box::new(testbed::private_redis().await))
    }

    /// RabbitMQ.
    pub async fn rabbitmq() -> Self {
        Self::RabbitMq(testbed::rabbitmq().await)
    }

    /// SQS with a fresh standard queue.
    pub async fn sqs() -> Self {
        let namespace = testbed::sqs().await;
        let queue_url = namespace.create_queue("order-events").await;
        Self::Sqs(namespace, queue_url)
    }

    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::RedisStreams => vec![("EVENT_SYSTEM", "local".into())],
            Self::OwnRedis(server) => {
                vec![("EVENT_SYSTEM", "local".into()), ("EVENTS_REDIS_URL", server.url().into())]
            }
            Self::RabbitMq(vhost) => {
                vec![("EVENT_SYSTEM", "rabbitmq".into()), ("AMQP_URL", vhost.url().into())]
            }
            Self::Sqs(namespace, queue_url) => {
                let mut env = vec![("EVENT_SYSTEM", "sqs".into()), ("SQS_QUEUE_URL", queue_url.clone())];
                env.extend(namespace.env());
                env
            }
        }
    }

    /// How many events it holds that no worker has been given, where `systems` is the system's own Redis. RabbitMQ counts
    /// every few seconds.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn waiting(&self, systems: &RedisStore) -> u64 {
        match self {
            Self::RedisStreams => lag(systems.connect().await).await,
            Self::OwnRedis(server) => lag(connect(server).await).await,
            Self::RabbitMq(vhost) => {
                let path = format!("queues/{}/{QUEUE}", vhost.name());
                let answer = vhost.manage("GET", &path, None).await.expect("RabbitMQ answers");
                let queue: Value = serde_json::from_str(&answer.body).expect("in JSON");
                queue["messages_ready"].as_u64().unwrap_or(0)
            }
            Self::Sqs(namespace, queue_url) => namespace.messages(queue_url).await,
        }
    }

    /// Loses all that it holds, as by an operator's mistake: `FLUSHALL`, a purged queue, a queue that is deleted and made
    /// again.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn lose_everything(&self) {
        match self {
            Self::RedisStreams => panic!("the system's own Redis holds more than the stream"),
            Self::OwnRedis(server) => {
                redis::cmd("FLUSHALL").exec_async(&mut connect(server).await).await.expect("flushed");
            }
            Self::RabbitMq(vhost) => {
                let contents = format!("queues/{}/{QUEUE}/contents", vhost.name());
                let answer = vhost.manage("DELETE", &contents, None).await.expect("RabbitMQ answers");
                assert!(answer.is_success(), "not purged: {}", answer.body);
            }
            Self::Sqs(namespace, queue_url) => {
                namespace.delete_queue(queue_url).await;
                let again = namespace.create_queue("order-events").await;
                assert_eq!(&again, queue_url);
            }
        }
    }
}

/// What the group of the stream has not been given.
async fn lag(mut redis: MultiplexedConnection) -> u64 {
    let groups = redis::cmd("XINFO").arg("GROUPS").arg(STREAM).query_async(&mut redis).await;
    let groups: redis::streams::StreamInfoGroupsReply = groups.expect("the stream has a group");
    groups.groups.iter().filter_map(|group| group.lag).sum::<usize>() as u64
}

async fn connect(server: &PrivateRedis) -> MultiplexedConnection {
    testbed::connect_redis(server.url()).await.expect("the private Redis answers")
}
