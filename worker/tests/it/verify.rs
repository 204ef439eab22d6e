//! `worker verify` finds each kind of difference, and `--repair` mends what can be mended.

use shared::platform::shutdown::Shutdown;
use shared::{
    cache::CacheWrite,
    domain::{
        event::{Event, Happened},
        order::CustomerKey,
    },
};
use worker::handlers::{EventHandler as _, cache::CacheHandler, history::HistoryHandler};

use crate::support::{
    TTL, World,
    binary::worker_with,
    events::{deletion, entry, event, fresh, log, order, store},
    key,
};

/// Orders 1 to 9, each created and updated, and order 10, deleted: stored, logged, recorded and cached.
async fn in_harmony() -> (World, Vec<Event>) {
    let world = World::new().await;
    let mut events = Vec::new();
    for id in 1..=10 {
        events.extend([event(id, 1), event(id, 2)]);
    }
    events.push(deletion(10, 3));
    store(&world.db, &events).await;
    let items: Vec<_> = events.iter().cloned().map(fresh).collect();
    HistoryHandler::new(world.db.clone(), &Shutdown::new()).handle(&items).await.unwrap();
    CacheHandler::new(world.cache.clone(), world.db.clone(), TTL).handle(&items).await.unwrap();
    (world, events)
}

async fn sql(world: &World, statement: &'static str) {
    sqlx::query(statement).execute(&world.db).await.unwrap();
}

/// The lines that begin with this word.
fn lines<'a>(out: &'a str, word: &str) -> Vec<&'a str> {
    out.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(": ")).collect()
}

fn digest<'a>(out: &'a str, name: &str) -> &'a str {
    let line = out.lines().find(|line| line.starts_with(&format!("{name:<25}"))).expect("a digest");
    line.split_whitespace().last().expect("a digest")
}

/// Verifies: exactly these differences, one line each that contains the given words.
async fn finds(world: &World, args: &[&str], expected: &[&str]) -> String {
    let said = world.worker(args).await;
    let found = lines(&said.out, "difference");
    assert_eq!(found.len(), expected.len(), "{said:?}");
    for (line, words) in found.iter().zip(expected) {
        assert!(line.contains(words), "{line:?} should say {words:?}");
    }
    said.out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_being_removed_is_not_compared() {
    let (world, _) = in_harmony().await;
    // Of the decoy, a part is gone.
    sql(&world, "DELETE FROM orders WHERE tenant_id = 2").await;
    let out = world.worker(&["verify"]).await.out;
    assert!(!lines(&out, "difference").is_empty(), "{out}");
    sql(&world, "UPDATE tenants SET removal_began_at = now() WHERE id = 2").await;
    let out = world.worker(&["verify"]).await.ok();
    assert!(out.contains("not compared: tenant 2, because it is being removed"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_harmony_there_is_no_difference_and_log_and_history_have_one_digest() {
    let (world, events) = in_harmony().await;
    // The decoy is recorded and not logged.
    sql(&world, "DELETE FROM order_history WHERE tenant_id = 2").await;
    sql(&world, "DELETE FROM orders WHERE tenant_id = 2").await;
    let out = world.worker(&["verify"]).await.ok();
    assert!(out.contains("no difference"), "{out}");
    assert_eq!(digest(&out, "log"), digest(&out, "history"));
    assert_eq!(digest(&out, "log"), digest(&out, "history of what is logged"));

    // The same set in another order.
    sql(&world, "DELETE FROM order_history").await;
    let items: Vec<_> = events.iter().rev().cloned().map(fresh).collect();
    HistoryHandler::new(world.db.clone(), &Shutdown::new()).handle(&items).await.unwrap();
    let again = world.worker(&["verify"]).await.ok();
    for name in ["orders", "log", "history", "cache"] {
        assert_eq!(digest(&out, name), digest(&again, name), "{name}");
    }
    sql(&world, "DELETE FROM order_history WHERE order_id = 1 AND version = 2").await;
    let less = world.worker(&["verify"]).await.out;
    assert_ne!(digest(&out, "history"), digest(&less, "history"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_history_lacks_or_has_wrong_is_found_and_mended() {
    let (world, _) = in_harmony().await;
    let _worker = world.run().await;
    sql(&world, "DELETE FROM order_history WHERE order_id IN (1, 10)").await;
    sql(
        &world,
        r#"UPDATE order_history SET changes = '{"status": null}' WHERE order_id = 2 AND version = 1"#,
    )
    .await;
    // What the log says of the last version counts: this is no order that should be gone.
    sql(&world, "UPDATE order_history SET action = 'DELETED' WHERE order_id = 3 AND version = 2").await;
    sql(&world, "UPDATE order_history SET performed_by = 7 WHERE order_id = 4 AND version = 2").await;
    sql(&world, "UPDATE order_history SET performed_by_tenant = 2 WHERE order_id = 5 AND version = 2").await;
    let expected = [
        "order 1 version 1: not in the history",
        "order 1 version 2: not in the history",
        "order 2 version 1: the history differs",
        "order 3 version 2: the history differs",
        "order 4 version 2: the history differs",
        "order 5 version 2: the history differs",
        "order 10 version 1: not in the history",
        "order 10 version 2: not in the history",
        "order 10 version 3: not in the history",
    ];
    finds(&world, &["verify"], &expected).await;
    assert_eq!(world.worker(&["verify"]).await.code, Some(1));
    let out = finds(&world, &["verify", "--repair"], &expected).await;
    assert!(out.contains("mended 9 of 9 differences"), "{out}");
    world.worker(&["verify"]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_of_an_operator_is_recorded_compared_and_mended() {
    let (world, _) = in_harmony().await;
    let order = order(20, 1);
    let operator = CustomerKey { tenant: 2.try_into().unwrap(), id: 71.try_into().unwrap() };
    let happened = Happened { time: order.created_at, performed_by: operator, traceparent: None };
    let event = Event::created(order, happened);
    store(&world.db, std::slice::from_ref(&event)).await;
    let items = [fresh(event)];
    HistoryHandler::new(world.db.clone(), &Shutdown::new()).handle(&items).await.unwrap();
    CacheHandler::new(world.cache.clone(), world.db.clone(), TTL).handle(&items).await.unwrap();
    let recorded = async || {
        let statement = "SELECT performed_by, performed_by_tenant FROM order_history WHERE order_id = 20";
        sqlx::query_as::<_, (i64, Option<i32>)>(statement).fetch_one(&world.db).await.unwrap()
    };
    let expected = (71, Some(2));
    assert_eq!(recorded().await, expected);
    finds(&world, &["verify"], &[]).await;
    let _worker = world.run().await;
    // As the version before records it, which does not know the tenant.
    sql(&world, "UPDATE order_history SET performed_by_tenant = NULL WHERE order_id = 20").await;
    let out = finds(&world, &["verify", "--repair"], &["order 20 version 1: the history differs"]).await;
    assert!(out.contains("mended 1 of 1 difference"), "{out}");
    assert_eq!(recorded().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_can_tell_any_more_is_reported_and_left() {
    let (world, _) = in_harmony().await;
    // The partition of these versions is gone, and they were never recorded.
    sql(&world, "DELETE FROM outbox WHERE order_id = 1 OR order_id = 2 AND version = 2").await;
    sql(&world, "DELETE FROM order_history WHERE order_id = 1 OR order_id = 2 AND version = 2").await;
    // Dropped with the log's old days, but recorded: nothing is wrong.
    sql(&world, "DELETE FROM outbox WHERE order_id = 3").await;
    sql(&world, "UPDATE order_history SET occurred_at = '2025-01-01T12:00:00Z' WHERE order_id = 3").await;
    // Of a day that the log still has: noon, for shortly after midnight it may have been logged on the day before.
    sql(&world, "DELETE FROM outbox WHERE order_id = 4 AND version = 1").await;
    sql(
        &world,
        "UPDATE order_history SET occurred_at = date_trunc('day', now(), 'UTC') + interval '12 hours'
                 WHERE order_id = 4 AND version = 1",
    )
    .await;
    let expected = [
        "order 1 versions 1 to 2: neither in the log",
        "order 2 version 2: neither in the log",
        "order 4 version 1: the log has lost",
    ];
    let out = finds(&world, &["verify", "--repair"], &expected).await;
    assert_eq!(lines(&out, "remains").len(), 3, "{out}");
    assert!(out.contains("mended 0 of 3 differences"), "{out}");
    assert_eq!(world.worker(&["verify"]).await.code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_at_the_ends_of_their_ranges_do_not_stop_the_comparison() {
    let (world, _) = in_harmony().await;
    // An order of the year 0, which versions before this one took.
    let mut old = order(11, 1);
    old.order_date = time::Date::from_ordinal_date(0, 60).unwrap();
    let old = Event {
        data: shared::domain::event::EventData {
            order: shared::domain::encoded::Encoded::new(old),
            ..event(11, 1).data
        },
        ..event(11, 1)
    };
    store(&world.db, std::slice::from_ref(&old)).await;
    HistoryHandler::new(world.db.clone(), &Shutdown::new()).handle(&[fresh(old)]).await.unwrap();
    world.worker(&["verify"]).await.ok();

    sql(
        &world,
        "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT order_id, 9223372036854775807, 'CREATED', '{}', 1, 1, gen_random_uuid(), '2025-01-01'
         FROM unnest(ARRAY[1, 99]) AS order_id",
    )
    .await;
    let expected = [
        "order 1 versions 3 to 9223372036854775806: neither in the log",
        "order 1: is at version 2 although version",
        "order 99 versions 1 to 9223372036854775806: neither in the log",
        "order 99: does not exist",
    ];
    finds(&world, &["verify"], &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_are_not_what_their_events_say_are_found() {
    let (world, _) = in_harmony().await;
    sql(&world, "UPDATE orders SET status = 'CANCELLED' WHERE id = 1").await;
    sql(&world, "UPDATE order_lines SET quantity = 9 WHERE id = 21").await;
    sql(&world, "UPDATE orders SET version = 1 WHERE id = 3").await;
    sql(&world, "DELETE FROM orders WHERE id = 4").await;
    log(&world.db, &event(5, 2)).await;
    let mut redis = world.redis.connect().await;
    let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap();
    let expected = [
        "order 1 version 2: the order differs",
        "order 2 version 2: the order differs",
        "order 3 version 1: the order differs",
        "order 3: is at version 1 although version 2",
        "order 4: does not exist, and version 2",
        "order 5 version 2: more than one event",
    ];
    finds(&world, &["verify"], &expected).await;
    // An order that a recorded deletion has not deleted.
    sql(&world, "INSERT INTO orders SELECT 10, customer_id, order_date, status, total_amount, 3, created_at, updated_at
                 FROM orders WHERE id = 9").await;
    let out = world.worker(&["verify"]).await.out;
    assert!(out.contains("order 10: exists although version 3 deleted it"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_cache_entries_are_found_and_mended() {
    let (world, _) = in_harmony().await;
    let mut redis = world.redis.connect().await;
    for id in [1, 2, 3, 4, 5, 10] {
        world.cache.remove(key(id)).await.unwrap();
    }
    let mut other_body = entry(&order(3, 2));
    other_body.content = other_body.content.map(|(owner, _)| (owner, "{}".into()));
    let tombstone = CacheWrite { content: None, ..entry(&order(4, 9)) };
    // Behind, ahead, with another body, deleted although there, unreadable, there although deleted, never there.
    world
        .cache
        .put(&[entry(&order(1, 1)), entry(&order(2, 7)), other_body, tombstone, entry(&order(10, 2))])
        .await
        .unwrap();
    world.cache.put(&[entry(&order(99, 1))]).await.unwrap();
    let _: () = redis::cmd("SET").arg("cache:order:5").arg("junk").query_async(&mut redis).await.unwrap();
    let said = world.worker(&["verify"]).await;
    assert_eq!(said.code, Some(1));
    let mut found: Vec<_> = lines(&said.out, "difference").into_iter().map(str::to_owned).collect();
    found.sort();
    let expected = [
        "order 10: the cache holds version 2 of an order that does not exist",
        "order 1: the cache holds version 1, which is older than the order",
        "order 2: the cache holds version 7, which the order has not reached",
        "order 3: the cache holds version 2 with another content than the order",
        "order 4: the cache says that version 9 deleted the order, which exists",
        "order 5: the cache holds an unreadable entry",
        "order 99: the cache holds version 1 of an order that does not exist",
    ];
    assert_eq!(found, expected);
    let out = world.worker(&["verify", "--repair"]).await.ok();
    assert!(out.contains("mended 7 of 7 differences"), "{out}");
    world.worker(&["verify"]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_merely_on_its_way_is_no_difference() {
    let (world, _) = in_harmony().await;
    let _worker = world.run().await;
    let stop = tokio_util::sync::CancellationToken::new();
    // A stream of changes, each visible in the log for a moment before it is recorded and cached.
    let traffic = async {
        let mut version = 2;
        while !stop.is_cancelled() {
            version += 1;
            let batch: Vec<Event> = (1..=9).map(|id| event(id, version)).collect();
            store(&world.db, &batch).await;
            world.publish(&batch).await;
        }
    };
    let verify = async {
        for _ in 0..2 {
            world.worker(&["verify"]).await.ok();
        }
        stop.cancel();
    };
    tokio::join!(traffic, verify);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_what_the_database_says_is_compared_and_printed_and_the_rest_is_named() {
    let (world, _) = in_harmony().await;
    sql(&world, "DELETE FROM order_history WHERE order_id = 1 AND version = 2").await;
    let nowhere = format!("redis://127.0.0.1:{}/0", testbed::free_port());
    let env = [("DATABASE_URL", world.database.url()), ("REDIS_URL", nowhere.as_str())];
    let said = worker_with(&env, &["verify"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    for name in ["orders", "log", "history", "history of what is logged"] {
        assert!(!digest(&said.out, name).is_empty(), "{said:?}");
    }
    assert_eq!(lines(&said.out, "difference").len(), 1, "{said:?}");
    assert!(
        lines(&said.out, "not compared").iter().any(|line| line.starts_with("the cache, because Redis")),
        "{said:?}"
    );

    sql(&world, "DELETE FROM order_history WHERE order_id = 1").await;
    sql(&world, "DELETE FROM outbox WHERE order_id = 1").await;
    sql(&world, "DELETE FROM order_lines WHERE order_id = 1").await;
    sql(&world, "DELETE FROM orders WHERE id = 1").await;
    let said = worker_with(&env, &["verify"]).await;
    assert!(said.out.contains("no difference"), "{said:?}");
    assert_eq!(said.code, Some(1), "what was not compared is no success: {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_compared_is_said() {
    let (world, _) = in_harmony().await;
    let out = world.worker(&["verify"]).await.ok();
    assert!(out.contains("not compared: what handlers other than history and cache did"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_ends_the_command_after_a_while_and_is_named() {
    let (world, _) = in_harmony().await;
    let mut lock = world.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE order_history IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let verify = world.worker(&["verify"]);
    let said =
        tokio::time::timeout(std::time::Duration::from_mins(1), verify).await.expect("the command ends");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("a table stayed locked for 10s: the session with pid"), "{said:?}");
    assert!(said.err.contains("AccessExclusiveLock on the table order_history"), "{said:?}");
}
