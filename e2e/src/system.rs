//! The whole system as real processes on stores of its own: what the end-to-end tests drive.

mod broker;
mod client;
mod store;
mod verify;

pub use broker::Broker;
pub use client::Client;
pub use store::RedisStore;
pub use verify::Verdict;

use std::time::Duration;

use sqlx::PgPool;
use testbed::{Database, Program, Proxy, RedisGroup, http};

/// Signs the tokens of every system under test.
const JWT_SECRET: &str = "end-to-end tests sign with this and nothing else";

/// The stores of one system, and how to start its programs on them.
#[derive(Debug)]
pub struct System {
    /// PostgreSQL.
    pub database: Database,
    /// Redis: the cache, the sessions, and the stream of [`Broker::RedisStreams`].
    pub redis: RedisStore,
    /// Where events go.
    pub broker: Broker,
    settings: Vec<(&'static str, String)>,
}

/// A running API.
#[derive(Debug)]
pub struct Api {
    /// The process.
    pub program: Program,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// Where its metrics are.
    metrics: String,
}

impl Api {
    /// The sum of all series of a counter; 0 if it has not counted yet.
    ///
    /// # Panics
    ///
    /// When the metrics cannot be read.
    pub async fn counted(&self, name: &str) -> u64 {
        let text = http::get(&self.metrics).await.expect("the API serves its metrics").body;
        let series = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let values = series.filter_map(|line| line.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<u64>().expect("a counter")).sum()
    }
}

impl System {
    /// Fresh stores on the shared servers.
    pub async fn new(broker: Broker) -> Self {
        Self::on(testbed::postgres().await, broker).await
    }

    /// On this database.
    pub async fn on(database: Database, broker: Broker) -> Self {
        let redis = RedisStore::Database(testbed::redis().await);
        Self { database, redis, broker, settings: Vec::new() }
    }

    /// A fresh database, and Redis servers of its own that replace each other and hold the stream, too.
    pub async fn on_redis_group(group: RedisGroup) -> Self {
        let (redis, broker) = (RedisStore::Group(group), Broker::RedisStreams);
        Self { database: testbed::postgres().await, redis, broker, settings: Vec::new() }
    }

    /// Has its programs know one more setting.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// Starts an API on a free port and waits until it is ready.
    pub async fn api(&self) -> Api {
        self.api_at(testbed::free_port()).await
    }

    /// Starts an API on this port and waits until it is ready.
    pub async fn api_at(&self, port: u16) -> Api {
        self.start_api(port, self.redis.url()).await
    }

    /// Starts an API that knows Redis by this address, and waits until it is ready.
    pub async fn api_with_redis(&self, redis_url: &str) -> Api {
        self.start_api(testbed::free_port(), redis_url).await
    }

    /// Starts an API that reaches Redis through [`Self::redis_proxy`], and waits until it is ready.
    pub async fn api_behind(&self, proxy: &Proxy) -> Api {
        let (_, database) = self.redis_address();
        self.api_with_redis(&format!("redis://{}/{database}", proxy.addr())).await
    }

    /// A proxy in front of Redis.
    pub async fn redis_proxy(&self) -> Proxy {
        Proxy::start(self.redis_address().0).await
    }

    /// Host and port of Redis, and the number of the database.
    fn redis_address(&self) -> (&str, &str) {
        let address = self.redis.url().strip_prefix("redis://").and_then(|rest| rest.split_once('/'));
        address.expect("the address of a Redis database")
    }

    async fn start_api(&self, port: u16, redis_url: &str) -> Api {
        let metrics = testbed::free_port();
        let mut program = Program::builder("api")
            .envs(self.env())
            .env("REDIS_URL", redis_url)
            .env("HOST", "127.0.0.1")
            .env("PORT", port)
            .env("METRICS_ADDR", format!("127.0.0.1:{metrics}"))
            .env("JWT_SECRET", JWT_SECRET)
            .spawn();
        let url = format!("http://127.0.0.1:{port}");
        program.wait_ready(&format!("{url}/api/v1/health/ready")).await;
        Api { program, url, metrics: format!("http://127.0.0.1:{metrics}/metrics") }
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Program {
        self.worker_and_readiness().await.0
    }

    /// [`Self::worker`], with the address of its readiness.
    pub async fn worker_and_readiness(&self) -> (Program, String) {
        let metrics = testbed::free_port();
        let mut program = self.worker_command().env("METRICS_ADDR", format!("127.0.0.1:{metrics}")).spawn();
        let ready = format!("http://127.0.0.1:{metrics}/health/ready");
        program.wait_ready(&ready).await;
        (program, ready)
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
        env.extend(self.settings.iter().cloned());
        env
    }

    /// Compares the cache with the orders; each difference in a sentence.
    pub async fn cache_differences(&self, db: &PgPool) -> Vec<String> {
        verify::cache_differences(self, db).await
    }

    /// Waits until everything that was committed has its history, then compares all that is stored.
    ///
    /// # Panics
    ///
    /// When the history is not complete in time.
    pub async fn wait_until_consistent(&self, patience: Duration) -> Verdict {
        verify::wait_until_consistent(self, patience).await
    }
}
