//! A PostgreSQL that falls silent, holds locks, or chooses the worker as the victim of a deadlock.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use secrecy::SecretString;
use shared::platform::{db::DbPool, schema::SchemaCheck, shutdown::Shutdown};
use sqlx::PgPool;
use testbed::{Proxy, eventually, eventually_within};
use tokio::sync::OnceCell;
use worker::{
    cache_debts::CacheDebts,
    consumer::{ConsumerSettings, HeldBatches},
    handlers::{EventHandler, cache::CacheHandler, history::HistoryHandler},
    health::Health,
    rights::RIGHTS,
};

use crate::support::{
    TTL, World, cache_at, consume,
    events::{event, fresh},
    handlers::Watched,
    impatient,
};

/// Recovery is promised within ten seconds; a busy machine gets as many more.
const SOON: Duration = Duration::from_secs(20);

/// The worker's pool on the same database, behind a proxy.
async fn behind_proxy(world: &World) -> (DbPool, Proxy) {
    let (user, rest) = world.database.url().split_once('@').expect("a user");
    let (server, database) = rest.split_once('/').expect("a database");
    let proxy = Proxy::start(server).await;
    let url = SecretString::from(format!("{user}@{}/{database}", proxy.addr()));
    (shared::platform::db::pool(&url, 8, "worker").expect("a URL"), proxy)
}

/// How many statements of the worker wait for a lock.
async fn waiting(db: &PgPool) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND application_name = 'worker'";
    sqlx::query_scalar(waiting).fetch_one(db).await.expect("PostgreSQL answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn after_postgresql_became_silent_the_whole_worker_continues_within_seconds() {
    let world = World::new().await;
    let (db, proxy) = behind_proxy(&world).await;
    let shutdown = Shutdown::new();
    // A cache that is away, so that debts are noted in PostgreSQL.
    let away = Proxy::start("127.0.0.1:1").await;
    let cache = cache_at(&format!("redis://{}/0", away.addr()));
    let handlers: Vec<Arc<dyn EventHandler>> = vec![
        Arc::new(HistoryHandler::new(db.clone(), &Shutdown::new())),
        Arc::new(CacheHandler::new(cache, db.clone(), TTL)),
    ];
    let settings = ConsumerSettings { max_attempts: 1, ..impatient() };
    let consumer = world.consumer_with(settings, db.clone(), handlers, shutdown.clone()).await;
    let running = tokio::spawn(async move { consumer.consume_until_shutdown().await });
    let debts = Arc::new(CacheDebts::new(db.clone(), world.cache.clone()));
    tokio::spawn(debts.pay_until_shutdown(shutdown.clone()));
    let health = Health {
        db: db.clone(),
        schema: SchemaCheck::new(RIGHTS),
        cache: world.cache.clone(),
        source: Arc::new(OnceCell::new()),
        held: HeldBatches::default(),
    };
    let database_is_well =
        async || !health.problems().await.iter().any(|problem| problem.starts_with("database"));
    let debts = "SELECT count(*) FROM cache_debts";

    for round in 0..3_i64 {
        let events: Vec<_> = (1..=20).map(|id| event(round * 20 + id, 1)).collect();
        world.publish(&events).await;
        let recorded = usize::try_from((round + 1) * 20).expect("a small number");
        eventually_within(SOON, "the events are recorded", async || world.recorded().await.len() == recorded)
            .await;
        eventually_within(SOON, "the debts are paid", async || {
            sqlx::query_scalar::<_, i64>(debts).fetch_one(&world.db).await.unwrap() == 0
        })
        .await;
        eventually_within(SOON, "the database is well", database_is_well).await;
        proxy.silence();
    }
    assert_eq!(world.dead_letters().await, []);
    shutdown.begin();
    running.await.expect("the consumer ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_costs_no_batch_an_attempt() {
    let world = World::new().await;
    let server = testbed::private_postgres().await;
    let db =
        shared::platform::db::pool(&SecretString::from(server.url().to_owned()), 4, "worker").expect("a URL");
    let handler = HistoryHandler::new(db.clone(), &Shutdown::new());
    for id in 1..=3 {
        handler.handle(&[fresh(event(id, 1))]).await.expect("PostgreSQL is up");
        server.stop().await;
        server.start().await;
        // It rested for longer than a second meanwhile, or is tried again.
        eventually("it goes on", async || handler.handle(&[fresh(event(id, 2))]).await).await;
    }
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_the_worker_has_cancelled_do_not_accumulate_behind_a_lock() {
    let world = World::new().await;
    let db = shared::platform::db::pool(&SecretString::from(world.database.url().to_owned()), 8, "worker")
        .expect("a URL");
    let watched = Watched::new(Arc::new(HistoryHandler::new(db, &Shutdown::new())));
    let handlers = vec![Arc::clone(&watched) as Arc<dyn EventHandler>];
    let settings = ConsumerSettings { max_attempts: 1, ..impatient() };
    let shutdown = Shutdown::new();
    let consumer = world.consumer_with(settings, world.db.clone(), handlers, shutdown.clone()).await;
    let running = tokio::spawn(async move { consumer.consume_until_shutdown().await });
    let mut lock = world.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE order_history IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    world.publish(&[event(1, 1)]).await;
    eventually("it was tried three times in vain", async || {
        assert!(waiting(&world.db).await <= 1, "one statement of one worker");
        watched.outages.load(Ordering::SeqCst) >= 3
    })
    .await;
    lock.rollback().await.unwrap();
    eventually("it is recorded", async || world.recorded().await == [(1, 1)]).await;
    assert_eq!(world.dead_letters().await, []);
    shutdown.begin();
    running.await.expect("the consumer ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_at_is_when_the_row_was_written_and_not_when_its_statement_began_to_wait() {
    let world = World::new().await;
    let db = shared::platform::db::pool(&SecretString::from(world.database.url().to_owned()), 2, "worker")
        .expect("a URL");
    let handler = HistoryHandler::new(db, &Shutdown::new());
    let mut lock = world.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE order_history IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let recording = tokio::spawn(async move { handler.handle(&[fresh(event(1, 1))]).await });
    eventually("it waits", async || waiting(&world.db).await == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let released: time::OffsetDateTime =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *lock).await.unwrap();
    lock.commit().await.unwrap();
    recording.await.unwrap().expect("the lock was released in time");
    let recorded: time::OffsetDateTime =
        sqlx::query_scalar("SELECT recorded_at FROM order_history WHERE tenant_id = 1")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert!(recorded >= released, "recorded at {recorded}, and the table was locked until {released}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_and_a_serialisation_failure_use_up_no_attempt() {
    let world = World::new().await;
    sqlx::raw_sql(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             CASE nextval('tries')
                 WHEN 1 THEN RAISE 'chosen as the victim' USING ERRCODE = '40P01';
                 WHEN 2 THEN RAISE 'not serialisable' USING ERRCODE = '40001';
                 WHEN 3 THEN RAISE 'chosen again' USING ERRCODE = '40P01';
                 ELSE RETURN NEW;
             END CASE;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON order_history FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let handler: Arc<dyn EventHandler> = Arc::new(HistoryHandler::new(world.db.clone(), &Shutdown::new()));
    let settings = ConsumerSettings { max_attempts: 1, ..impatient() };
    let consumer = world.consumer_with(settings, world.db.clone(), vec![handler], Shutdown::new()).await;
    world.publish(&[event(1, 1)]).await;
    let summary = consume(&consumer, 1).await;
    assert_eq!((summary.handled, summary.retried, summary.dead_lettered), (1, 0, 0));
    assert_eq!(world.recorded().await, [(1, 1)]);
}
