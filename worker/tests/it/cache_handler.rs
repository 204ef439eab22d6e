//! What the cache handler writes.

use shared::cache::{CacheWrite, Lookup};
use worker::handlers::{EventHandler as _, HandlerEvent, cache::CacheHandler};

use crate::support::{
    TTL, World,
    events::{customer, deletion, entry, event, fresh, late, order},
    key,
};

async fn handled(world: &World, events: &[HandlerEvent]) {
    CacheHandler::new(world.cache.clone(), world.db.clone(), TTL).handle(events).await.expect("all is up");
}

#[tokio::test]
async fn an_entry_is_the_order_byte_for_byte_as_it_is_answered() {
    let world = World::new().await;
    let event = event(7, 1);
    let answered = event.data.order.to_bytes();
    // As it comes from a broker: through JSON.
    let received = shared::domain::event::Event::read(&event.to_envelope().body.into()).unwrap();
    handled(&world, &[fresh(received)]).await;
    let Lookup::Found(found) = world.cache.get(key(7)).await.unwrap() else { panic!("no entry") };
    assert_eq!(found.body, answered);
    assert_eq!((found.version, found.owner), (1, customer()));
}

#[tokio::test]
async fn a_deletion_leaves_a_tombstone_that_no_older_event_raises() {
    let world = World::new().await;
    handled(&world, &[fresh(deletion(7, 3)), fresh(event(7, 2))]).await;
    handled(&world, &[fresh(event(7, 1))]).await;
    assert_eq!(world.cache.get(key(7)).await.unwrap(), Lookup::Deleted { version: 3 });
}

#[tokio::test]
async fn a_late_event_raises_an_entry_and_never_creates_one() {
    let world = World::new().await;
    let redelivered = HandlerEvent { attempt: 2, ..fresh(event(1, 1)) };
    handled(&world, &[redelivered, late(event(2, 1)), late(deletion(3, 2))]).await;
    for id in [1, 2, 3] {
        assert_eq!(world.cache.get(key(id)).await.unwrap(), Lookup::Miss);
    }

    world.cache.put(&[entry(&order(1, 1)), entry(&order(2, 1)), entry(&order(3, 1))]).await.unwrap();
    let redelivered = HandlerEvent { attempt: 2, ..fresh(event(1, 2)) };
    handled(&world, &[redelivered, late(event(2, 2)), late(deletion(3, 2))]).await;
    for id in [1, 2] {
        let Lookup::Found(found) = world.cache.get(key(id)).await.unwrap() else { panic!("no entry") };
        assert_eq!(found.version, 2);
    }
    assert_eq!(world.cache.get(key(3)).await.unwrap(), Lookup::Deleted { version: 2 });
}

#[tokio::test]
async fn with_short_lives_an_event_is_late_before_a_newer_entry_could_expire() {
    let world = World::new().await;
    let short = std::time::Duration::from_secs(10);
    let handler = CacheHandler::new(world.cache.clone(), world.db.clone(), short);
    let delayed = |id, seconds| {
        let item = fresh(event(id, 1));
        HandlerEvent { received_at: item.received_at + time::Duration::seconds(seconds), ..item }
    };
    handler.handle(&[delayed(1, 4), delayed(2, 6)]).await.unwrap();
    assert!(matches!(world.cache.get(key(1)).await.unwrap(), Lookup::Found(_)));
    assert_eq!(world.cache.get(key(2)).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn something_else_under_a_key_of_the_cache_is_replaced() {
    let world = World::new().await;
    let mut redis = world.redis.connect().await;
    let _: () = redis::cmd("LPUSH").arg("cache:order:7").arg("x").query_async(&mut redis).await.unwrap();
    let write: CacheWrite = entry(&order(7, 1));
    assert_eq!(world.cache.put(&[write]).await.unwrap(), [true]);
    assert!(matches!(world.cache.get(key(7)).await.unwrap(), Lookup::Found(_)));
}
