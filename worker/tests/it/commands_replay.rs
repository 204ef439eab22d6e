//! `worker replay` and `worker rebuild-cache`.

use shared::cache::Lookup;
use testbed::DECOY_ORDERS;

use crate::support::{
    World,
    binary::worker_with,
    events::{deletion, entry, event, order, store},
    key,
};

async fn waiting(world: &World) -> u64 {
    world.source().await.backlog().await.unwrap().messages
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_publishes_retained_events_in_their_order_and_harms_nothing() {
    let world = World::new().await;
    store(&world.db, &[event(1, 1), event(2, 1), event(1, 2), deletion(1, 3)]).await;
    // The group exists from here on.
    assert_eq!(waiting(&world).await, 0);
    let said = world.worker(&["replay", "--order", "1"]).await.ok();
    assert_eq!(said.trim(), "sent 3 events again");
    let consumer = world.consumer(world.handlers()).await;
    crate::support::consume(&consumer, 3).await;
    assert_eq!(world.recorded().await, [(1, 1), (1, 2), (1, 3)]);

    sqlx::query("UPDATE outbox SET recorded_at = now() - interval '1 hour' WHERE order_id = 2")
        .execute(&world.db)
        .await
        .unwrap();
    let half_an_hour_ago = shared::domain::timestamp::format(
        shared::domain::clock::Clock::System.now() - time::Duration::minutes(30),
    );
    let said = world.worker(&["replay", "--from", &half_an_hour_ago]).await.ok();
    assert_eq!(said.trim(), "sent 3 events again");
    let said = world.worker(&["replay", "--from", "2020-01-01"]).await.ok();
    assert_eq!(said.trim(), "sent 4 events again");
    crate::support::consume(&consumer, 7).await;
    assert_eq!(world.recorded().await, [(1, 1), (1, 2), (1, 3), (2, 1)]);
    assert_eq!(world.cache.get(key(1)).await.unwrap(), Lookup::Deleted { version: 3 });

    assert_eq!(world.worker(&["replay", "--order", "9"]).await.ok().trim(), "the log holds no such events");
    assert_eq!(world.worker(&["replay"]).await.code, Some(2));
    assert_eq!(world.worker(&["replay", "--order", "1", "--from", "2020-01-01"]).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_cache_writes_every_order_as_it_is_and_replaces_nothing_newer() {
    let world = World::new().await;
    let orders: Vec<_> = (1..=700).map(|id| event(id, 1)).collect();
    store(&world.db, &orders).await;
    store(&world.db, &[event(1, 1), event(1, 2)]).await;
    // Stale, newer than what the command may read, and deleted meanwhile.
    world.cache.put(&[entry(&order(1, 1)), entry(&order(2, 5))]).await.unwrap();
    let tombstone = shared::cache::CacheWrite { content: None, ..entry(&order(3, 2)) };
    world.cache.put(&[tombstone]).await.unwrap();

    let said = world.worker(&["rebuild-cache"]).await.ok();
    let (written, all) = (698 + DECOY_ORDERS, 700 + DECOY_ORDERS);
    assert_eq!(said.trim(), format!("wrote {written} entries of {all} orders"));
    let version = async |id| match world.cache.get(key(id)).await.unwrap() {
        Lookup::Found(found) => found.version,
        other => panic!("{other:?}"),
    };
    assert_eq!((version(1).await, version(2).await, version(700).await), (2, 5, 1));
    assert_eq!(world.cache.get(key(3)).await.unwrap(), Lookup::Deleted { version: 2 });
    let Lookup::Found(found) = world.cache.get(key(700)).await.unwrap() else { panic!("no entry") };
    assert_eq!(found.body, orders[699].data.order.to_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_cache_writes_every_order_also_after_redis_has_evicted_keys() {
    let world = World::new().await;
    store(&world.db, &[event(1, 1), event(2, 1), event(2, 2)]).await;
    let redis = testbed::private_redis().await;
    redis.ask::<()>(&["SET", "cache:order:9", "x", "PX", "60000"]).await;
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl", "maxmemory", "1"]).await;
    testbed::eventually("a key is evicted", async || redis.info("evicted_keys").await != "0").await;
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;

    let env = [("DATABASE_URL", world.database.url()), ("REDIS_URL", redis.url())];
    let said = worker_with(&env, &["rebuild-cache"]).await.ok();
    let all = 2 + DECOY_ORDERS;
    assert_eq!(said.trim(), format!("wrote {all} entries of {all} orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_to_a_handler_gives_it_the_events_and_nobody_else() {
    let world = World::new().await;
    store(&world.db, &[event(1, 1), event(1, 2), event(2, 1)]).await;
    assert_eq!(waiting(&world).await, 0);
    // Older than its order, and never created by a replay.
    world.cache.put(&[entry(&order(1, 1))]).await.unwrap();

    let said = world.worker(&["replay", "--from", "2020-01-01", "--handler", "cache"]).await.ok();
    assert_eq!(said.trim(), "gave 3 events to the handler cache");
    assert_eq!(world.recorded().await, []);
    let Lookup::Found(found) = world.cache.get(key(1)).await.unwrap() else { panic!("no entry") };
    assert_eq!(found.version, 2);
    assert_eq!(world.cache.get(key(2)).await.unwrap(), Lookup::Miss);

    for _ in 0..2 {
        let said = world.worker(&["replay", "--order", "1", "--handler", "history"]).await.ok();
        assert_eq!(said.trim(), "gave 2 events to the handler history");
    }
    assert_eq!(world.recorded().await, [(1, 1), (1, 2)]);
    assert_eq!(waiting(&world).await, 0, "nothing went to the broker");

    sqlx::query("UPDATE outbox SET payload = '{}' WHERE order_id = 2").execute(&world.db).await.unwrap();
    let said = world.worker(&["replay", "--from", "2020-01-01", "--handler", "history"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("was refused: not an event"), "{said:?}");
    assert!(said.out.contains("gave 2 events to the handler history"), "{said:?}");

    let said = world.worker(&["replay", "--order", "1", "--handler", "mail"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains(r#"there is no handler "mail"; choose one of history, cache"#), "{said:?}");
}
