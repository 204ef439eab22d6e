//! `worker dead-letters redrive`: always safe.

use std::sync::Arc;

use shared::{cache::Lookup, domain::event::Event};
use testbed::Program;
use worker::handlers::EventHandler;

use crate::support::{
    World, consume,
    events::{event, store},
    handlers::{Fault, Faulty},
    key,
};

/// Sets these events aside, as a handler that refuses them would.
async fn set_aside(world: &World, events: &[Event]) {
    let faults = events.iter().map(|event| (event.data.order_id.get(), Fault::Permanent));
    let consumer = world.consumer(vec![Faulty::new(faults) as Arc<dyn EventHandler>]).await;
    world.publish(events).await;
    consume(&consumer, events.len()).await;
}

async fn open(world: &World) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL")
        .fetch_one(&world.db)
        .await
        .unwrap()
}

async fn recorded_within_reason(world: &World, rows: usize) {
    testbed::eventually("everything is recorded", async || world.recorded().await.len() == rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_event_comes_under_its_own_id_and_is_marked() {
    let world = World::new().await;
    let events: Vec<Event> = (1..=20).map(|id| event(id, 1)).collect();
    store(&world.db, &events).await;
    set_aside(&world, &events).await;
    assert_eq!((open(&world).await, world.recorded().await.len()), (20, 0));

    let _worker: Program = world.run().await;
    let said = world.worker(&["dead-letters", "redrive", "1", "2"]).await.ok();
    assert_eq!(said.trim(), "sent 2 events again");
    assert_eq!(open(&world).await, 18);
    let missing = world.worker(&["dead-letters", "redrive", "3", "4711"]).await;
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert_eq!(missing.out.trim(), "only 1 of these 2 dead letters exist: nothing was sent");
    assert_eq!(open(&world).await, 18);
    let said = world.worker(&["dead-letters", "redrive", "--order", "3"]).await.ok();
    assert_eq!(said.trim(), "sent 1 event again");
    let said = world.worker(&["dead-letters", "redrive", "--all", "--rate", "100/s"]).await.ok();
    assert_eq!(said.trim(), "sent 17 events again");
    assert_eq!(open(&world).await, 0);
    assert_eq!(
        world.worker(&["dead-letters", "redrive", "--all"]).await.ok().trim(),
        "no dead letters to send again"
    );
    recorded_within_reason(&world, 20).await;
    let ids: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT event_id FROM order_history WHERE tenant_id = 1 ORDER BY order_id")
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(ids, events.iter().map(|event| event.id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn redriving_twice_during_traffic_changes_nothing_that_was_right() {
    let world = World::new().await;
    // Version 1 of each order was set aside; version 2 has been recorded and cached since.
    let first: Vec<Event> = (1..=300).map(|id| event(id, 1)).collect();
    set_aside(&world, &first).await;
    let _workers = tokio::join!(world.run(), world.run());
    let second: Vec<Event> = (1..=300).map(|id| event(id, 2)).collect();
    world.publish(&second[..150]).await;

    let ids: Vec<String> = (1..=300).map(|id| id.to_string()).collect();
    let numbers: Vec<&str> = ids.iter().map(String::as_str).collect();
    let twice = [&["dead-letters", "redrive"], &numbers[..]].concat();
    let (one, two, ()) =
        tokio::join!(world.worker(&twice), world.worker(&twice), world.publish(&second[150..]));
    assert_eq!(one.ok().trim(), "sent 300 events again");
    assert_eq!(two.ok().trim(), "sent 300 events again");
    recorded_within_reason(&world, 600).await;
    let source = world.source().await;
    testbed::eventually("everything is acknowledged", async || {
        source.backlog().await.is_ok_and(|backlog| backlog.messages == 0)
    })
    .await;

    assert_eq!(open(&world).await, 0);
    let recorded: Vec<uuid::Uuid> = sqlx::query_scalar(
        "SELECT event_id FROM order_history WHERE tenant_id = 1 ORDER BY version, order_id",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    let expected: Vec<uuid::Uuid> = first.iter().chain(&second).map(|event| event.id).collect();
    assert_eq!(recorded, expected);
    for id in 1..=300 {
        let Lookup::Found(found) = world.cache.get(key(id)).await.unwrap() else { panic!("no entry") };
        assert_eq!(found.version, 2, "order {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_text_is_reported_and_the_rest_is_sent() {
    let world = World::new().await;
    set_aside(&world, &[event(1, 1)]).await;
    sqlx::query(
        r"INSERT INTO dead_letters (body, source, reason, attempts, broker) VALUES ('\xff', 'parse', '', 1, 'local')",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let said = world.worker(&["dead-letters", "redrive", "--all"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("sent 1 event again") && said.out.contains("the body is not text"), "{said:?}");
    assert_eq!(open(&world).await, 1);
}
