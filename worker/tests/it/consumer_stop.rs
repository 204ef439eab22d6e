//! Stopping, and sharing the load.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use shared::platform::shutdown::Shutdown;
use worker::handlers::EventHandler;

use crate::support::{
    World, consume,
    events::event,
    handlers::{Faulty, Gate},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_the_batches_in_flight() {
    let world = World::new().await;
    world.publish(&(1..=50).map(|id| event(id, 1)).collect::<Vec<_>>()).await;
    let (gate, shutdown) = (Gate::closed(), Shutdown::new());
    let mut handlers = world.handlers();
    handlers.push(Arc::clone(&gate) as Arc<dyn EventHandler>);
    let consumer = world.consumer_on(world.db.clone(), handlers, shutdown.clone()).await;
    let running = tokio::spawn(async move { consumer.consume_until_shutdown().await });
    testbed::eventually("all are in flight", async || gate.waiting.load(Ordering::SeqCst) == 50).await;
    shutdown.begin();
    gate.open.add_permits(1000);
    tokio::time::timeout(Duration::from_secs(10), running)
        .await
        .expect("in time")
        .expect("the consumer ends");
    assert_eq!(world.source().await.backlog().await.unwrap().messages, 0);
    assert_eq!(world.recorded().await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_releases_events_that_do_not_finish() {
    let world = World::new().await;
    world.publish(&(1..=50).map(|id| event(id, 1)).collect::<Vec<_>>()).await;
    let (gate, shutdown) = (Gate::closed(), Shutdown::new());
    let handlers = vec![Arc::clone(&gate) as Arc<dyn EventHandler>];
    let mut settings = crate::support::impatient();
    settings.handler_deadline = Duration::from_mins(1);
    let consumer = world.consumer_with(settings, world.db.clone(), handlers, shutdown.clone()).await;
    let running = tokio::spawn(async move { consumer.consume_until_shutdown().await });
    testbed::eventually("all are in flight", async || gate.waiting.load(Ordering::SeqCst) == 50).await;
    shutdown.begin();
    tokio::time::timeout(Duration::from_secs(12), running)
        .await
        .expect("in time")
        .expect("the consumer ends");

    let other = world.consumer(world.handlers()).await;
    let summary = consume(&other, 50).await;
    assert_eq!((summary.handled, summary.dead_lettered), (50, 0));
    assert_eq!(world.recorded().await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_share_the_load_and_record_no_event_twice() {
    let world = World::new().await;
    let shutdown = Shutdown::new();
    let mut shares = Vec::new();
    let mut running = Vec::new();
    for _ in 0..3 {
        let share = Faulty::new([]);
        let mut settings = crate::support::impatient();
        settings.batch_size = 10;
        let consumer = world
            .consumer_with(
                settings,
                world.db.clone(),
                vec![Arc::clone(&share) as Arc<dyn EventHandler>],
                shutdown.clone(),
            )
            .await;
        shares.push(share);
        running.push(tokio::spawn(async move { consumer.consume_until_shutdown().await }));
    }
    world.publish(&(1..=3000).map(|id| event(id, 1)).collect::<Vec<_>>()).await;
    let source = world.source().await;
    testbed::eventually("everything is acknowledged", async || {
        source.backlog().await.is_ok_and(|backlog| backlog.messages == 0)
    })
    .await;
    shutdown.begin();
    for consumer in running {
        consumer.await.expect("the consumer ends");
    }
    let handled: Vec<usize> = shares.iter().map(|share| share.handled().len()).collect();
    assert_eq!(handled.iter().sum::<usize>(), 3000, "{handled:?}");
    assert!(handled.iter().all(|share| *share > 0), "{handled:?}");
}

#[tokio::test]
async fn sigterm_ends_the_worker_with_code_0_and_sigkill_loses_nothing() {
    let world = World::new().await;
    let (killed, stopped) = tokio::join!(world.run(), world.run());
    world.publish(&(1..=500).map(|id| event(id, 1)).collect::<Vec<_>>()).await;
    killed.kill();
    let another = world.run().await;
    // What the killed one held is reclaimed once it has been idle for long enough.
    testbed::eventually_within(Duration::from_mins(2), "everything is recorded", async || {
        world.recorded().await.len() == 500
    })
    .await;
    assert!(stopped.terminate().await.success());
    assert!(another.terminate().await.success());
    assert_eq!(world.dead_letters().await, []);
}
