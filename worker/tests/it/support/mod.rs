//! What the tests share: events, a consumer on a broker of its own, and the binary.

pub(crate) mod binary;
pub(crate) mod events;
pub(crate) mod handlers;

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use shared::{
    broker::{BrokerConfig, EventSink, EventSource, PublishOutcome, connect_sink, connect_source},
    cache::Cache,
    domain::{
        clock::Clock,
        event::Event,
        order::{OrderId, OrderKey},
        tenant::TenantId,
    },
    platform::{backoff::Backoff, db::DbPool, shutdown::Shutdown},
};
use sqlx::PgPool;
use testbed::{Database, RedisDb};
use worker::{
    consumer::{BatchSummary, Consumer, ConsumerSettings},
    handlers::{EventHandler, all_handlers},
};

pub(crate) const TTL: Duration = Duration::from_hours(1);

/// Servers of a test's own.
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) redis: RedisDb,
    pub(crate) db: PgPool,
    pub(crate) cache: Cache,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (database, redis) = tokio::join!(testbed::postgres(), testbed::redis());
        let db = database.connect().await;
        let cache = cache_at(redis.url());
        Self { database, redis, db, cache }
    }

    pub(crate) fn broker(&self) -> BrokerConfig {
        BrokerConfig::RedisStreams { url: SecretString::from(self.redis.url().to_owned()) }
    }

    pub(crate) async fn source(&self) -> Arc<dyn EventSource> {
        Arc::from(connect_source(&self.broker(), "test").await.expect("the broker is up"))
    }

    /// Publishes bodies as they are.
    pub(crate) async fn publish(&self, events: &[Event]) {
        let sink = connect_sink(&self.broker()).await.expect("the broker is up");
        publish_to(sink.as_ref(), events).await;
        sink.close().await;
    }

    /// The handlers of `worker run`.
    pub(crate) fn handlers(&self) -> Vec<Arc<dyn EventHandler>> {
        all_handlers(&self.db.clone().into(), &self.cache, TTL, &Shutdown::new())
    }

    /// A consumer with these handlers that is impatient.
    pub(crate) async fn consumer(&self, handlers: Vec<Arc<dyn EventHandler>>) -> Consumer {
        self.consumer_on(self.db.clone(), handlers, Shutdown::new()).await
    }

    pub(crate) async fn consumer_on(
        &self,
        db: impl Into<DbPool>,
        handlers: Vec<Arc<dyn EventHandler>>,
        shutdown: Shutdown,
    ) -> Consumer {
        self.consumer_with(impatient(), db, handlers, shutdown).await
    }

    pub(crate) async fn consumer_with(
        &self,
        settings: ConsumerSettings,
        db: impl Into<DbPool>,
        handlers: Vec<Arc<dyn EventHandler>>,
        shutdown: Shutdown,
    ) -> Consumer {
        Consumer::new(self.source().await, handlers, db, Clock::System, settings, shutdown)
    }

    /// The versions in the history, by order.
    pub(crate) async fn recorded(&self) -> Vec<(i64, i64)> {
        sqlx::query_as(
            "SELECT order_id, version FROM order_history WHERE tenant_id = 1 ORDER BY order_id, version",
        )
        .fetch_all(&self.db)
        .await
        .expect("the history can be read")
    }

    /// Source, attempts and reason of the dead letters, oldest first.
    pub(crate) async fn dead_letters(&self) -> Vec<(Option<i64>, String, i32, String)> {
        sqlx::query_as("SELECT order_id, source, attempts, reason FROM dead_letters ORDER BY id")
            .fetch_all(&self.db)
            .await
            .expect("the dead letters can be read")
    }
}

pub(crate) async fn publish_to(sink: &dyn EventSink, events: &[Event]) {
    let envelopes: Vec<_> = events.iter().map(Event::to_envelope).collect();
    for batch in envelopes.chunks(500) {
        for outcome in sink.publish(batch).await {
            assert!(matches!(outcome, PublishOutcome::Confirmed), "{outcome:?}");
        }
    }
}

pub(crate) fn cache_at(url: &str) -> Cache {
    Cache::new(&SecretString::from(url.to_owned()), TTL, Duration::from_secs(5)).expect("a Redis address")
}

/// Settings that make failures cost milliseconds.
pub(crate) fn impatient() -> ConsumerSettings {
    ConsumerSettings {
        wait: Duration::from_millis(200),
        retry: Backoff::new(Duration::from_millis(10), Duration::from_millis(50)),
        hold: Backoff::new(Duration::from_millis(20), Duration::from_millis(200)),
        ..ConsumerSettings::default()
    }
}

/// Consumes until this many events are handled or dead-lettered, and returns their number by outcome.
pub(crate) async fn consume(consumer: &Consumer, events: usize) -> BatchSummary {
    let mut sum = BatchSummary::default();
    testbed::eventually("all events are consumed", async || {
        let step = consumer.consume_once().await.expect("the broker is up");
        sum.received += step.received;
        sum.handled += step.handled;
        sum.retried += step.retried;
        sum.dead_lettered += step.dead_lettered;
        sum.handed_back += step.handed_back;
        sum.handled + sum.dead_lettered >= events
    })
    .await;
    sum
}

/// What an order of the default tenant is found by.
pub(crate) fn key(id: i64) -> OrderKey {
    OrderKey { tenant: TenantId::DEFAULT, id: order_id(id) }
}

pub(crate) fn order_id(id: i64) -> OrderId {
    OrderId::try_from(id).expect("a positive number")
}
