//! A dependency that is down costs time, and nothing else.

use std::{str::FromStr as _, sync::Arc, time::Duration};

use shared::shutdown::Shutdown;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use testbed::Proxy;
use worker::handlers::{EventHandler, history::HistoryHandler};

use crate::support::{World, events::event};

/// The same database through a proxy.
async fn behind_proxy(world: &World) -> (PgPool, Proxy) {
    let options = PgConnectOptions::from_str(world.database.url()).expect("a URL");
    let proxy = Proxy::start(format!("{}:{}", options.get_host(), options.get_port())).await;
    let options = options.host("127.0.0.1").port(proxy.addr().port());
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(1)).test_before_acquire(false);
    (pool.connect_lazy_with(options), proxy)
}

fn history(db: &PgPool) -> Vec<Arc<dyn EventHandler>> {
    vec![Arc::new(HistoryHandler::new(db.clone()))]
}

/// Runs a consumer behind a proxy to PostgreSQL through an outage, with events before, during and after it.
async fn survives(outage: impl AsyncFn(&Proxy), end: impl AsyncFn(&Proxy)) {
    let world = World::new().await;
    let (db, proxy) = behind_proxy(&world).await;
    let shutdown = Shutdown::new();
    let consumer = world.consumer_on(db.clone(), history(&db), shutdown.clone()).await;
    let running = tokio::spawn(async move { consumer.run().await });

    let events: Vec<_> = (1..=300).map(|id| event(id, 1)).collect();
    world.publish(&events[..100]).await;
    testbed::eventually("the first events are recorded", async || world.recorded().await.len() == 100).await;
    outage(&proxy).await;
    world.publish(&events[100..200]).await;
    let source = world.source().await;
    testbed::eventually("the batch is held", async || {
        source.backlog().await.is_ok_and(|backlog| backlog.messages == 100)
    })
    .await;
    // More tries than an event has attempts.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.publish(&events[200..]).await;
    assert_eq!(world.recorded().await.len(), 100);
    end(&proxy).await;
    testbed::eventually("everything is recorded", async || world.recorded().await.len() == 300).await;
    testbed::eventually("everything is acknowledged", async || {
        source.backlog().await.is_ok_and(|backlog| backlog.messages == 0)
    })
    .await;
    assert_eq!(world.dead_letters().await, []);
    shutdown.begin();
    running.await.expect("the consumer ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_postgresql_loses_nothing_and_sets_nothing_aside() {
    survives(
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
    // The real bound on statements is longer than this test's deadline for handlers, so both are at work here.
    survives(async |proxy| proxy.freeze(), async |proxy| proxy.thaw()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_set_aside_waits_until_it_can() {
    let world = World::new().await;
    let (db, proxy) = behind_proxy(&world).await;
    proxy.refuse().await;
    let shutdown = Shutdown::new();
    let faulty = crate::support::handlers::Faulty::new([(1, crate::support::handlers::Fault::Permanent)]);
    let consumer = world.consumer_on(db, vec![faulty], shutdown.clone()).await;
    let source = world.source().await;
    world.publish(&[event(1, 1), event(2, 1)]).await;
    let running = tokio::spawn(async move { consumer.run().await });
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
    let consumer = world.consumer_on(db.clone(), history(&db), shutdown.clone()).await;
    let source = world.source().await;
    world.publish(&[event(1, 1), event(2, 1)]).await;
    let running = tokio::spawn(async move { consumer.run().await });
    testbed::eventually("nothing new waits", async || {
        source.receive(10, Duration::from_millis(50)).await.is_ok_and(|batch| batch.is_empty())
    })
    .await;
    shutdown.begin();
    tokio::time::timeout(Duration::from_secs(10), running)
        .await
        .expect("in time")
        .expect("the consumer ends");

    let other = world.consumer(history(&world.db)).await;
    crate::support::consume(&other, 2).await;
    assert_eq!(world.recorded().await, [(1, 1), (2, 1)]);
    assert_eq!(world.dead_letters().await, []);
}
