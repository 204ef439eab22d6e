//! What happens to the cache's entries while Redis is away.

use std::sync::Arc;

use shared::cache::Lookup;
use shared::platform::shutdown::Shutdown;
use testbed::Proxy;
use worker::{
    cache_debts::CacheDebts,
    handlers::{EventHandler, cache::CacheHandler, history::HistoryHandler},
};

use crate::support::{
    TTL, World, cache_at, consume,
    events::{deletion, entry, event, order, store},
    key,
};

/// The same Redis through a proxy: its address, and the proxy.
async fn behind_proxy(url: &str) -> (String, Proxy) {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (server, database) = rest.split_once('/').expect("a database");
    let proxy = Proxy::start(server).await;
    (format!("{scheme}://{}/{database}", proxy.addr()), proxy)
}

#[tokio::test]
async fn without_redis_the_history_goes_on_and_the_entries_are_owed_until_it_is_back() {
    let world = World::new().await;
    let (url, proxy) = behind_proxy(world.redis.url()).await;
    let cache = cache_at(&url);
    // What was cached before the outage.
    world.cache.put(&[entry(&order(1, 1)), entry(&order(2, 1))]).await.unwrap();
    let events = [event(1, 1), event(1, 2), event(2, 1), deletion(2, 2), event(3, 1)];
    store(&world.db, &events).await;
    proxy.refuse().await;
    proxy.cut();

    world.publish(&events).await;
    let handlers: Vec<Arc<dyn EventHandler>> = vec![
        Arc::new(HistoryHandler::new(world.db.clone(), &Shutdown::new())),
        Arc::new(CacheHandler::new(cache.clone(), world.db.clone(), TTL)),
    ];
    let consumer = world.consumer(handlers).await;
    let summary = consume(&consumer, events.len()).await;
    assert_eq!((summary.handled, summary.retried, summary.dead_lettered), (5, 0, 0));
    assert_eq!(world.recorded().await, [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]);

    let debts = CacheDebts::new(world.db.clone(), cache);
    assert!(debts.pay_once().await.is_err(), "Redis is away");
    proxy.accept().await;
    let paid = testbed::eventually("the debts are paid", async || debts.pay_once().await).await;
    assert_eq!(paid, 3);
    assert_eq!(debts.pay_once().await.unwrap(), 0);

    let Lookup::Found(found) = world.cache.get(key(1)).await.unwrap() else { panic!("no entry") };
    assert_eq!((found.version, found.body), (2, events[1].data.order.to_bytes()));
    assert_eq!(world.cache.get(key(2)).await.unwrap(), Lookup::Deleted { version: 2 });
    // It was not in the cache, and what is owed is late.
    assert_eq!(world.cache.get(key(3)).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn a_debt_is_paid_from_the_order_as_it_is_by_then() {
    let world = World::new().await;
    world.cache.put(&[entry(&order(1, 1))]).await.unwrap();
    store(&world.db, &[event(1, 1), event(1, 2), event(1, 3)]).await;
    sqlx::query("INSERT INTO cache_debts (order_id, version) VALUES (1, 2)")
        .execute(&world.db)
        .await
        .unwrap();
    let debts = CacheDebts::new(world.db.clone(), world.cache.clone());
    assert_eq!(debts.pay_once().await.unwrap(), 1);
    let Lookup::Found(found) = world.cache.get(key(1)).await.unwrap() else { panic!("no entry") };
    assert_eq!(found.version, 3);
}
