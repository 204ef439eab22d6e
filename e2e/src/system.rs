//! The whole system as real processes on stores of its own: what the end-to-end tests drive.

mod client;
mod verify;

pub use client::Client;
pub use verify::Verdict;

use std::time::Duration;

use testbed::{Database, Program, RedisDb, SqsNamespace, Vhost};

/// Signs the tokens of every system under test.
const JWT_SECRET: &str = "end-to-end tests sign with this and nothing else";

/// Which broker carries the events, with the resources it needs.
#[derive(Debug)]
pub enum Broker {
    /// Redis Streams, on the system's own Redis.
    RedisStreams,
    /// A virtual host of its own.
    RabbitMq(Vhost),
    /// A queue of its own.
    Sqs(SqsNamespace, String),
}

impl Broker {
    /// RabbitMQ.
    pub async fn rabbitmq() -> Self {
        Self::RabbitMq(testbed::rabbitmq().await)
    }

    /// SQS with a fresh standard queue.
    pub async fn sqs() -> Self {
        let namespace = testbed::sqs().await;
        let queue_url = create_queue(namespace.endpoint(), &namespace.queue_name("order-events")).await;
        Self::Sqs(namespace, queue_url)
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::RedisStreams => vec![("EVENT_SYSTEM", "local".into())],
            Self::RabbitMq(vhost) => {
                vec![("EVENT_SYSTEM", "rabbitmq".into()), ("AMQP_URL", vhost.url().into())]
            }
            Self::Sqs(namespace, queue_url) => vec![
                ("EVENT_SYSTEM", "sqs".into()),
                ("SQS_QUEUE_URL", queue_url.clone()),
                ("AWS_ENDPOINT_URL", namespace.endpoint().into()),
                ("AWS_REGION", "us-east-1".into()),
                ("AWS_ACCESS_KEY_ID", "test".into()),
                ("AWS_SECRET_ACCESS_KEY", "test".into()),
            ],
        }
    }
}

/// SQS' query protocol: one request, for which a client library would be a lot to link.
async fn create_queue(endpoint: &str, name: &str) -> String {
    let answer = reqwest::Client::new()
        .post(endpoint)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("Action=CreateQueue&Version=2012-11-05&QueueName={name}"))
        .send()
        .await
        .expect("SQS answers")
        .text()
        .await
        .expect("SQS answers in text");
    let url = answer.split_once("<QueueUrl>").and_then(|(_, rest)| rest.split_once("</QueueUrl>"));
    url.unwrap_or_else(|| panic!("no queue was created: {answer}")).0.to_owned()
}

/// The stores of one system, and how to start its programs on them.
#[derive(Debug)]
pub struct System {
    /// PostgreSQL.
    pub database: Database,
    /// Redis: the cache, the sessions, and the stream of [`Broker::RedisStreams`].
    pub redis: RedisDb,
    /// Where events go.
    pub broker: Broker,
}

/// A running API.
#[derive(Debug)]
pub struct Api {
    /// The process.
    pub program: Program,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
}

impl System {
    /// Fresh stores on the shared servers.
    pub async fn new(broker: Broker) -> Self {
        let (database, redis) = (testbed::postgres().await, testbed::redis().await);
        Self { database, redis, broker }
    }

    /// Starts an API on a free port and waits until it is ready.
    pub async fn api(&self) -> Api {
        self.api_at(testbed::free_port()).await
    }

    /// Starts an API on this port and waits until it is ready.
    pub async fn api_at(&self, port: u16) -> Api {
        let metrics = testbed::free_port();
        let mut program = Program::builder("api")
            .envs(self.env())
            .env("HOST", "127.0.0.1")
            .env("PORT", port)
            .env("METRICS_ADDR", format!("127.0.0.1:{metrics}"))
            .env("JWT_SECRET", JWT_SECRET)
            .spawn();
        let url = format!("http://127.0.0.1:{port}");
        program.wait_ready(&format!("{url}/api/v1/health/ready")).await;
        Api { program, url }
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Program {
        let metrics = testbed::free_port();
        let mut program = self.worker_command().env("METRICS_ADDR", format!("127.0.0.1:{metrics}")).spawn();
        program.wait_ready(&format!("http://127.0.0.1:{metrics}/health/ready")).await;
        program
    }

    /// The worker binary with the environment of this system, for its other commands.
    pub fn worker_command(&self) -> testbed::ProgramBuilder {
        Program::builder("worker").envs(self.env())
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("DATABASE_URL", self.database.url().to_owned()),
            ("REDIS_URL", self.redis.url().to_owned()),
            ("DEBUG", "true".to_owned()),
            ("LOG_LEVEL", "INFO".to_owned()),
        ];
        env.extend(self.broker.env());
        env
    }

    /// Waits until everything that was committed has its history, then compares all that is stored.
    ///
    /// # Panics
    ///
    /// When the history is not complete in time.
    pub async fn settle(&self, patience: Duration) -> Verdict {
        verify::settle(self, patience).await
    }
}
