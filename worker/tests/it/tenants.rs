//! Events, history, cache, dead letters and commands of several tenants.

use std::sync::Arc;

use serde_json::Value;
use shared::{
    cache::Lookup,
    domain::{
        event::{Event, Happened},
        order::{Order, OrderKey, OrderStatus},
        tenant::TenantId,
    },
    platform::shutdown::Shutdown,
};
use worker::{
    cache_debts::CacheDebts,
    consumer::BatchSummary,
    handlers::{EventHandler, cache::CacheHandler, history::HistoryHandler},
    store::orders::load_orders,
};

use crate::support::{
    TTL, World, cache_at, consume,
    events::{event, fresh, order, store},
    handlers::{Fault, Faulty},
    key, order_id,
};

fn tenant(id: i32) -> TenantId {
    id.try_into().expect("a positive number")
}

fn key_of(tenant_id: i32, id: i64) -> OrderKey {
    OrderKey { tenant: tenant(tenant_id), id: order_id(id) }
}

/// The event of a version of a tenant's order.
fn event_of(tenant_id: i32, id: i64, version: i64) -> Event {
    let order = Order { tenant_id: tenant(tenant_id), ..order(id, version) };
    let happened = Happened { time: order.updated_at, performed_by: order.owner(), traceparent: None };
    if version == 1 {
        return Event::created(order, happened);
    }
    let before = Order { status: OrderStatus::Pending, ..order.clone() };
    Event::updated(&before, order, happened)
}

/// Makes a tenant with the next number, which is 3 for the first one.
async fn create_tenant(world: &World, slug: &str) -> i32 {
    sqlx::query_scalar("INSERT INTO tenants (slug, name) VALUES ($1, $1) RETURNING id")
        .bind(slug)
        .fetch_one(&world.db)
        .await
        .expect("the tenant is stored")
}

/// Tenant and version of what is recorded of an order.
async fn recorded(world: &World, id: i64) -> Vec<(i32, i64)> {
    sqlx::query_as("SELECT tenant_id, version FROM order_history WHERE order_id = $1 ORDER BY version")
        .bind(id)
        .fetch_all(&world.db)
        .await
        .expect("the history can be read")
}

async fn count(world: &World, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&world.db).await.expect("a number")
}

async fn sql(world: &World, statement: &'static str) {
    sqlx::query(statement).execute(&world.db).await.expect("SQL");
}

/// Order 1 of the default tenant and order 2 of tenant 3, both created and changed: stored, logged, recorded and cached.
async fn two_shops() -> (World, Vec<Event>) {
    let world = World::new().await;
    assert_eq!(create_tenant(&world, "other").await, 3);
    let events = vec![event(1, 1), event(1, 2), event_of(3, 2, 1), event_of(3, 2, 2)];
    store(&world.db, &events).await;
    let items: Vec<_> = events.iter().cloned().map(fresh).collect();
    HistoryHandler::new(world.db.clone(), &Shutdown::new()).handle(&items).await.unwrap();
    CacheHandler::new(world.cache.clone(), world.db.clone(), TTL).handle(&items).await.unwrap();
    (world, events)
}

#[tokio::test]
async fn a_version_is_recorded_and_cached_for_the_tenant_that_its_event_names() {
    let (world, events) = two_shops().await;
    assert_eq!(recorded(&world, 1).await, [(1, 1), (1, 2)]);
    assert_eq!(recorded(&world, 2).await, [(3, 1), (3, 2)]);
    let Lookup::Found(found) = world.cache.get(key_of(3, 2)).await.unwrap() else { panic!("no entry") };
    assert_eq!((found.version, found.body), (2, events[3].data.order.to_bytes()));
    for other in [key(2), key_of(2, 2), key_of(3, 1)] {
        assert_eq!(world.cache.get(other).await.unwrap(), Lookup::Miss, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_tenant_that_was_removed_is_acknowledged_and_leaves_nothing() {
    let world = World::new().await;
    assert_eq!(create_tenant(&world, "leaving").await, 3);
    sql(&world, "UPDATE tenants SET removal_began_at = now() WHERE id = 3").await;
    // Tenant 4 is gone, and so is an event of it that no handler can handle.
    let events = [event(1, 1), event_of(3, 2, 1), event_of(4, 3, 1), event_of(4, 4, 1), event_of(3, 5, 1)];
    let faulty = Faulty::new([(4, Fault::Permanent), (5, Fault::Permanent)]);
    let mut handlers = world.handlers();
    handlers.push(faulty);
    world.publish(&events).await;
    let consumer = world.consumer(handlers).await;
    let summary = consume(&consumer, events.len()).await;
    let expected = BatchSummary { received: 5, handled: 3, dead_lettered: 2, ..BatchSummary::default() };
    assert_eq!(summary, expected);
    assert_eq!(world.recorded().await, [(1, 1)]);
    for id in 2..=5 {
        assert_eq!(recorded(&world, id).await, []);
        for tenant_id in 1..=4 {
            assert_eq!(world.cache.get(key_of(tenant_id, id)).await.unwrap(), Lookup::Miss);
        }
    }
    assert_eq!(count(&world, "SELECT count(*) FROM dead_letters").await, 0);
    assert!(matches!(world.cache.get(key(1)).await.unwrap(), Lookup::Found(_)));

    // Without Redis, too.
    let away = cache_at("redis://127.0.0.1:1");
    let handler = CacheHandler::new(away, world.db.clone(), TTL);
    let items: Vec<_> = events.into_iter().map(fresh).collect();
    handler.handle(&items).await.unwrap();
    assert_eq!(count(&world, "SELECT count(*) FROM cache_debts").await, 1);
}

#[tokio::test]
async fn what_the_cache_owes_is_paid_for_its_tenant() {
    let (world, events) = two_shops().await;
    world.cache.put(&[]).await.unwrap();
    let stale = cache_at("redis://127.0.0.1:1");
    let items: Vec<_> = events.iter().cloned().map(fresh).collect();
    CacheHandler::new(stale, world.db.clone(), TTL).handle(&items).await.unwrap();
    let owed: Vec<(i64, i32)> =
        sqlx::query_as("SELECT order_id, tenant_id FROM cache_debts ORDER BY order_id")
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(owed, [(1, 1), (2, 3)]);
    // Entries that are older than the orders.
    world.cache.purge().await.unwrap();
    for (order, body) in [(key(1), &events[0]), (key_of(3, 2), &events[2])] {
        let content = Some((body.data.customer_id, body.data.order.to_bytes()));
        let write = shared::cache::CacheWrite { order, version: 1, content, may_create: true };
        assert_eq!(world.cache.put(&[write]).await.unwrap(), [true]);
    }
    let paid = CacheDebts::new(world.db.clone(), world.cache.clone()).pay_once().await.unwrap();
    assert_eq!(paid, 2);
    for order in [key(1), key_of(3, 2)] {
        let Lookup::Found(found) = world.cache.get(order).await.unwrap() else { panic!("no entry") };
        assert_eq!(found.version, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_have_the_tenant_that_their_body_names_and_are_filtered_by_it() {
    let world = World::new().await;
    create_tenant(&world, "other").await;
    let faulty = Faulty::new([(1, Fault::Permanent), (2, Fault::Permanent)]);
    world.publish(&[event(1, 1), event_of(3, 2, 1)]).await;
    // No event, but it says whose it is.
    let mut broken: Value = serde_json::from_str(&event_of(3, 3, 1).to_envelope().body).unwrap();
    broken["data"]["version"] = 7.into();
    let mut envelope = event_of(3, 3, 1).to_envelope();
    envelope.body = broken.to_string();
    let sink = shared::broker::connect_sink(&world.broker()).await.unwrap();
    sink.publish(&[envelope]).await;
    sink.close().await;
    let handlers: Vec<Arc<dyn EventHandler>> = vec![faulty];
    let consumer = world.consumer(handlers).await;
    assert_eq!(consume(&consumer, 3).await.dead_lettered, 3);

    let listed = async |filter: &[&str]| {
        let out = world.worker(&[&["dead-letters", "list", "--json"], filter].concat()).await.ok();
        let letter = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let mut tenants: Vec<i64> =
            out.lines().map(|line| letter(line)["tenant_id"].as_i64().unwrap()).collect();
        tenants.sort_unstable();
        tenants
    };
    assert_eq!(listed(&[]).await, [1, 3, 3]);
    assert_eq!(listed(&["--tenant", "3"]).await, [3, 3]);
    assert_eq!(listed(&["--tenant", "1"]).await, [1]);
    assert_eq!(listed(&["--tenant", "2"]).await, [0_i64; 0]);
    let wrong = world.worker(&["dead-letters", "list", "--tenant", "0"]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let out = world.worker(&["dead-letters", "purge", "--tenant", "3", "--yes"]).await.ok();
    assert!(out.contains("removed 2 dead letters"), "{out}");
    assert_eq!(listed(&[]).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_what_is_of_a_wrong_tenant_and_mends_it_in_history_and_cache() {
    let (world, events) = two_shops().await;
    let out = world.worker(&["verify"]).await.ok();
    assert!(out.contains("no difference"), "{out}");

    sql(&world, "UPDATE order_history SET tenant_id = 1 WHERE order_id = 2 AND version = 2").await;
    let order = &events[3].data.order;
    let content = Some((order.customer_id, order.to_bytes()));
    let write = shared::cache::CacheWrite { order: key(2), version: 2, content, may_create: true };
    assert_eq!(world.cache.put(&[write]).await.unwrap(), [true]);
    let said = world.worker(&["verify"]).await;
    assert_eq!(said.code, Some(1));
    for words in [
        "order 2 version 2: the history differs",
        "order 2: the cache holds version 2 of an order that does not exist",
    ] {
        assert!(said.out.contains(words), "{said:?}");
    }
    let out = world.worker(&["verify", "--repair"]).await.ok();
    assert!(out.contains("mended 2 of 2 differences"), "{out}");
    assert_eq!(recorded(&world, 2).await, [(3, 1), (3, 2)]);
    assert_eq!(world.cache.get(key(2)).await.unwrap(), Lookup::Miss);
    assert!(matches!(world.cache.get(key_of(3, 2)).await.unwrap(), Lookup::Found(_)));

    for (damage, repair) in [
        ("UPDATE orders SET tenant_id = 1 WHERE id = 2", "UPDATE orders SET tenant_id = 3 WHERE id = 2"),
        (
            "UPDATE order_lines SET tenant_id = 1 WHERE id = 21",
            "UPDATE order_lines SET tenant_id = 3 WHERE id = 21",
        ),
    ] {
        sql(&world, damage).await;
        let said = world.worker(&["verify"]).await;
        assert!(said.out.contains("order 2 version 2: the order differs"), "{said:?}");
        sql(&world, repair).await;
    }
    sql(&world, "UPDATE outbox SET tenant_id = 1 WHERE order_id = 2 AND version = 1").await;
    let said = world.worker(&["verify"]).await;
    assert!(said.out.contains("order 2 version 1: the history differs"), "{said:?}");
    // Both of the same tenant, which is not that of the event.
    sql(&world, "UPDATE order_history SET tenant_id = 1 WHERE order_id = 2 AND version = 1").await;
    let said = world.worker(&["verify"]).await;
    assert!(said.out.contains("order 2 version 1: the history differs"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_and_rebuild_cache_know_tenants() {
    let (world, _) = two_shops().await;
    sql(&world, "DELETE FROM order_history WHERE order_id < 10").await;
    world.cache.purge().await.unwrap();
    let replay = ["replay", "--from", "2020-01-01", "--handler", "history"];
    let out = world.worker(&[&replay[..], &["--tenant", "3"]].concat()).await.ok();
    assert!(out.contains("gave 2 events"), "{out}");
    assert_eq!(recorded(&world, 1).await, []);
    assert_eq!(recorded(&world, 2).await, [(3, 1), (3, 2)]);
    let out = world.worker(&["replay", "--order", "2", "--tenant", "1", "--handler", "history"]).await.ok();
    assert!(out.contains("the log holds no such events"), "{out}");
    world.worker(&replay).await.ok();
    assert_eq!(recorded(&world, 1).await, [(1, 1), (1, 2)]);

    // A line that is not of its order's tenant is none of its lines.
    sql(&world, "UPDATE order_lines SET tenant_id = 1 WHERE id = 21").await;
    world.worker(&["rebuild-cache"]).await.ok();
    let Lookup::Found(found) = world.cache.get(key_of(3, 2)).await.unwrap() else { panic!("no entry") };
    let body: Value = serde_json::from_slice(&found.body).unwrap();
    assert_eq!(body["lines"].as_array().unwrap().iter().map(|line| &line["id"]).collect::<Vec<_>>(), [22]);
    for order in [key(1), key_of(3, 2)] {
        let Lookup::Found(found) = world.cache.get(order).await.unwrap() else { panic!("no entry") };
        assert_eq!(found.version, 2);
    }
    assert_eq!(world.cache.get(key(2)).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn an_order_is_loaded_for_its_own_tenant_alone() {
    let world = World::new().await;
    sql(
        &world,
        "WITH placed AS (
             INSERT INTO orders (id, tenant_id, customer_id, order_date, status, total_amount, version, created_at, updated_at)
             VALUES (5, 2, 7, '2025-01-20', 'PENDING', 1, 1, now(), now()) RETURNING id, tenant_id)
         INSERT INTO order_lines (id, tenant_id, order_id, position, product_id, quantity, unit_price)
         SELECT 9, tenant_id, id, 0, 1, 1, 1 FROM placed",
    )
    .await;
    let mut db = world.db.acquire().await.expect("a connection");
    for (asked, found) in [(2, 1), (1, 0)] {
        let orders = load_orders(&mut db, &[key_of(asked, 5)]).await.expect("the orders");
        assert_eq!(orders.len(), found, "asked for one of tenant {asked}");
    }
}
