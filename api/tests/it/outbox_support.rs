//! A log to write to, and a broker that does what a test tells it and remembers what it was given.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::outbox::{Relay, RelaySettings, RelayStep};
use async_trait::async_trait;
use shared::{
    broker::{BrokerError, EventSink, EventSystem, PublishOutcome},
    domain::event::Envelope,
    platform::db::DbPool,
};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::watch;
use uuid::Uuid;

/// A database of the test's own, and relays on it.
pub(crate) struct Log {
    pub(crate) database: testbed::Database,
    pub(crate) db: PgPool,
    /// The same database as the API takes it.
    pub(crate) pool: DbPool,
}

impl Log {
    pub(crate) async fn new() -> Self {
        let database = testbed::postgres().await;
        let db = database.connect().await;
        Self { database, pool: db.clone().into(), db }
    }

    /// A connection beside the pool, for a transaction that stays open.
    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(self.database.url()).await.expect("a connection")
    }

    /// Commits an event.
    pub(crate) async fn append(&self, order: i64, version: i64) -> i64 {
        append(&mut self.db.acquire().await.expect("a connection"), order, version).await
    }

    /// Commits an event of each of some orders, in one transaction.
    pub(crate) async fn append_many(&self, orders: std::ops::RangeInclusive<i64>) {
        sqlx::query(
            "INSERT INTO outbox (event_id, event_type, order_id, version, payload)
             SELECT gen_random_uuid(), 'OrderCreated', o, 1, json_build_object('order', o)
             FROM generate_series($1::bigint, $2) o ORDER BY o",
        )
        .bind(orders.start())
        .bind(orders.end())
        .execute(&self.db)
        .await
        .expect("the events are written");
    }

    /// A relay whose lease outlasts the test.
    pub(crate) fn relay(&self, broker: &Arc<Broker>) -> Relay {
        self.relay_with(broker, RelaySettings { lease: Duration::from_hours(1), ..RelaySettings::default() })
    }

    pub(crate) fn relay_with(&self, broker: &Arc<Broker>, settings: RelaySettings) -> Relay {
        Relay::new(self.db.clone(), Arc::clone(broker) as Arc<dyn EventSink>, settings)
    }

    /// A value of the row of the relay, as text.
    pub(crate) async fn relay_row(&self, column: &str) -> String {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT coalesce({column}::text, '') FROM relay")))
            .fetch_one(&self.db)
            .await
            .expect("the relay's row")
    }

    pub(crate) async fn run(&self, sql: &'static str) -> u64 {
        sqlx::query(sql)
            .execute(&self.db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .rows_affected()
    }
}

/// Writes an event on a connection, in its transaction where it has one, and answers its id.
pub(crate) async fn append(connection: &mut PgConnection, order: i64, version: i64) -> i64 {
    sqlx::query_scalar(
        "INSERT INTO outbox (event_id, event_type, order_id, version, payload)
         VALUES ($1, 'OrderUpdated', $2, $3, json_build_object('version', $3)) RETURNING id",
    )
    .bind(Uuid::now_v7())
    .bind(order)
    .bind(version)
    .fetch_one(connection)
    .await
    .expect("the event is written")
}

/// Steps until there is nothing to publish, and answers how many events were confirmed.
pub(crate) async fn publish_all(relay: &Relay) -> u64 {
    let mut total = 0;
    loop {
        match relay.relay_once().await.expect("a step") {
            RelayStep::Published { confirmed, .. } => total += confirmed,
            RelayStep::Idle => return total,
            other => panic!("{other:?} after {total} events"),
        }
    }
}

type Answer = Box<dyn FnMut(&Envelope) -> PublishOutcome + Send>;

/// Stores events in memory. Takes everything, unless a test tells it otherwise.
pub(crate) struct Broker {
    stored: Mutex<Vec<Envelope>>,
    answer: Mutex<Answer>,
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
    takeovers: AtomicU64,
    largest_batch: AtomicUsize,
}

impl Broker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            stored: Mutex::default(),
            answer: Mutex::new(Box::new(|_| PublishOutcome::Confirmed)),
            open: watch::Sender::new(true),
            waiting: watch::Sender::new(0),
            takeovers: AtomicU64::new(0),
            largest_batch: AtomicUsize::new(0),
        })
    }

    /// From now on each event gets the answer of `answer`; what is confirmed is stored.
    pub(crate) fn answers(&self, answer: impl FnMut(&Envelope) -> PublishOutcome + Send + 'static) {
        *lock(&self.answer) = Box::new(answer);
    }

    /// From now on everything is confirmed.
    pub(crate) fn confirms(&self) {
        self.answers(|_| PublishOutcome::Confirmed);
    }

    /// Answers nothing until it is opened again.
    pub(crate) fn block(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn unblock(&self) {
        self.open.send_replace(true);
    }

    /// Another server takes its place, which may lack the last events.
    pub(crate) fn take_over(&self) {
        self.takeovers.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves when a batch waits for a blocked broker.
    pub(crate) async fn is_asked(&self) {
        self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.expect("the broker lives");
    }

    /// What was confirmed since the last call, as order and version.
    pub(crate) fn take(&self) -> Vec<(i64, i64)> {
        self.take_events().iter().map(|event| (event.key, event.sequence)).collect()
    }

    pub(crate) fn take_events(&self) -> Vec<Envelope> {
        std::mem::take(&mut *lock(&self.stored))
    }

    /// The bytes of the largest batch that was offered.
    pub(crate) fn largest_batch(&self) -> usize {
        self.largest_batch.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.stored).len()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broker")
    }
}

#[async_trait]
impl EventSink for Broker {
    fn system(&self) -> EventSystem {
        EventSystem::RedisStreams
    }

    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.open.subscribe().wait_for(|open| *open).await.expect("the broker lives");
        self.waiting.send_modify(|waiting| *waiting -= 1);
        let bytes = batch.iter().map(|event| event.body.len()).sum();
        self.largest_batch.fetch_max(bytes, Ordering::Relaxed);
        let mut answer = lock(&self.answer);
        let mut stored = lock(&self.stored);
        batch
            .iter()
            .map(|event| {
                let outcome = answer(event);
                if matches!(outcome, PublishOutcome::Confirmed) {
                    stored.push(event.clone());
                }
                outcome
            })
            .collect()
    }

    fn takeovers(&self) -> u64 {
        self.takeovers.load(Ordering::Relaxed)
    }

    async fn check(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn close(&self) {}
}

/// The broker's answer while it is out of reach.
pub(crate) fn unreachable() -> PublishOutcome {
    PublishOutcome::Retry(BrokerError::unavailable(EventSystem::RedisStreams, "told so by the test"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}
