//! A dependency that is down costs time, and nothing else.

use std::{
    str::FromStr as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use shared::platform::shutdown::Shutdown;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use testbed::Proxy;
use worker::{
    consumer::ConsumerSettings,
    handlers::{EventHandler, history::HistoryHandler},
};

use crate::support::{
    World, consume,
    events::event,
    handlers::{Fault, Faulty, Watched},
    impatient,
};

/// The same database through a proxy.
async fn behind_proxy(world: &World) -> (PgPool, Proxy) {
    let options = PgConnectOptions::from_str(world.database.url()).expect("a URL");
    let proxy = Proxy::start(format!("{}:{}", options.get_host(), options.get_port())).await;
    let options = options.host("127.0.0.1").port(proxy.addr().port());
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(1)).test_before_acquire(false);
    (pool.connect_lazy_with(options), proxy)
}

fn history(db: &PgPool) -> Vec<Arc<dyn EventHandler>> {
    vec![Arc::new(HistoryHandler::new(db.clone(), &Shutdown::new()))]
}

/// Runs a consumer behind a proxy to PostgreSQL through an outage of so many failed calls, with events before, during and
/// after it. An attempt that counted would be the last one.
async fn survives(failed_calls: usize, outage: impl AsyncFn(&Proxy), end: impl AsyncFn(&Proxy)) {
    let world = World::new().await;
    let (db, proxy) = behind_proxy(&world).await;
    let shutdown = Shutdown::new();
    let history = Watched::new(Arc::new(HistoryHandler::new(db.clone(), &Shutdown::new())));
    let settings = ConsumerSettings { max_attempts: 1, ..impatient() };
    let handlers = vec![Arc::clone(&history) as Arc<dyn EventHandler>];
    let consumer = world.consumer_with(settings, db.clone(), handlers, shutdown.clone()).await;
    let running = tokio::spawn(async move { consumer.consume_until_shutdown().await });

    let events: Vec<_> = (1..=300).map(|id| event(id, 1)).collect();
    world.publish(&events[..100]).await;
    testbed::eventually("the first events are recorded", async || world.recorded().await.len() == 100).await;
    outage(&proxy).await;
    world.publish(&events[100..200]).await;
    testbed::eventually("the batch was tried in vain", async || {
        history.outages.load(Ordering::SeqCst) >= failed_calls
    })
    .await;
    world.publish(&events[200..]).await;
    assert_eq!(world.recorded().await.len(), 100);
    end(&proxy).await;
    testbed::eventually("everything is recorded", async || world.recorded().await.len() == 300).await;
    let source = world.source().await;
    testbed::eventually("everything is acknowledged", async || {
        source.backlog().await.is_ok_and(|backlog| backlog.messages == 0)
    })
    .await;
    assert_eq!(world.dead_letters().await, []);
    shutdown.begin();
    running.await.expect("the consumer ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_postgresql_loses_no_event_and_makes_none_a_dead_letter() {
    survives(
        6,
        async |proxy| {
            proxy.refuse().await;
            proxy.cut();
        },
        async |proxy| proxy.accept().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_to_postgresql_is_an_outage_and_not_a_handler_that_hangs() {
    survives(2, async |proxy| proxy.freeze(), async |proxy| proxy.thaw()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_stored_waits_until_it_can() {
    let world = World::new().await;
    let (db, proxy) = behind_proxy(&world).await;
    proxy.refuse().await;
    let shutdown = Shutdown::new();
    let faulty = Faulty::new([(1, Fault::Permanent)]);
    let consumer = world.consumer_on(db, vec![faulty], shutdown.clone()).await;
    let source = world.source().await;
    world.publish(&[event(1, 1), event(2, 1)]).await;
    let running = tokio::spawn(async move { consumer.consume_until_shutdown().await });
    testbed::eventually("its neighbour is acknowledged", async || {
        source.backlog().await.is_ok_and(|backlog| backlog.messages == 1)
    })
    .await;
    assert_eq!(world.dead_letters().await, []);
    proxy.accept().await;
    testbed::eventually("it is set aside", async || world.dead_letters().await.len() == 1).await;
    testbed::eventually("it is acknowledged", async || {
        source.backlog().await.is_ok_and(|backlog| backlog.messages == 0)
    })
    .await;
    shutdown.begin();
    running.await.expect("the consumer ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_an_outage_hands_the_batch_to_another_worker() {
    let world = World::new().await;
    let (db, proxy) = behind_proxy(&world).await;
    proxy.refuse().await;
    let shutdown = Shutdown::new();
    let held = Watched::new(Arc::new(HistoryHandler::new(db.clone(), &Shutdown::new())));
    let handlers = vec![Arc::clone(&held) as Arc<dyn EventHandler>];
    let consumer = world.consumer_on(db, handlers, shutdown.clone()).await;
    world.publish(&[event(1, 1), event(2, 1)]).await;
    let running = tokio::spawn(async move { consumer.consume_until_shutdown().await });
    testbed::eventually("a batch is held", async || held.outages.load(Ordering::SeqCst) >= 1).await;
    shutdown.begin();
    tokio::time::timeout(Duration::from_secs(10), running)
        .await
        .expect("in time")
        .expect("the consumer ends");

    let other = world.consumer(history(&world.db)).await;
    consume(&other, 2).await;
    assert_eq!(world.recorded().await, [(1, 1), (2, 1)]);
    assert_eq!(world.dead_letters().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_is_an_outage_and_an_error_of_a_trigger_is_a_failure_of_its_event() {
    let world = World::new().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on my watch'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON order_history FOR EACH ROW WHEN (NEW.order_id = 2)
         EXECUTE FUNCTION refuse();
         ALTER TABLE order_history RENAME TO elsewhere",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let watched = Watched::new(Arc::new(HistoryHandler::new(world.db.clone(), &Shutdown::new())));
    let consumer = world.consumer(vec![Arc::clone(&watched) as Arc<dyn EventHandler>]).await;
    world.publish(&[event(1, 1), event(2, 1)]).await;
    let (summary, ()) = tokio::join!(consume(&consumer, 2), async {
        testbed::eventually("it is held", async || watched.outages.load(Ordering::SeqCst) >= 3).await;
        sqlx::query("ALTER TABLE elsewhere RENAME TO order_history").execute(&world.db).await.unwrap();
    });
    assert_eq!((summary.handled, summary.retried, summary.dead_lettered), (1, 4, 1));
    assert_eq!(world.recorded().await, [(1, 1)]);
    let letters = world.dead_letters().await;
    assert_eq!((letters[0].0, letters[0].2), (Some(2), 5));
    assert!(letters[0].3.contains("not on my watch"), "{letters:?}");
}
