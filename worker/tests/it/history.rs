//! What the history handler records.

use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::{domain::event::EventType, platform::shutdown::Shutdown};
use worker::handlers::{EventHandler as _, HandlerError, HandlerEvent, history::HistoryHandler};

use crate::support::{
    World,
    events::{deletion, event, fresh},
};

#[tokio::test]
async fn each_version_is_recorded_with_what_its_event_says() {
    let world = World::new().await;
    let events = [event(1, 1), event(1, 2), deletion(1, 3)];
    let items: Vec<HandlerEvent> = events.iter().cloned().map(fresh).collect();
    HistoryHandler::new(world.db.clone(), &Shutdown::new()).handle(&items).await.unwrap();

    let rows: Vec<(i64, String, Value, i64, i64, uuid::Uuid, time::OffsetDateTime)> = sqlx::query_as(
        "SELECT version, action, changes::json, customer_id, performed_by, event_id, occurred_at
         FROM order_history WHERE order_id = 1 ORDER BY version",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    for (row, (event, action)) in rows.iter().zip(events.iter().zip(["CREATED", "UPDATED", "DELETED"])) {
        assert_eq!((row.0, row.1.as_str()), (event.data.version, action));
        assert_eq!(row.2, serde_json::from_str::<Value>(event.data.changes.json()).unwrap());
        assert_eq!((row.3, row.4, row.5, row.6), (123, 123, event.id, event.time));
    }
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1].2, json!({ "status": { "from": "PENDING", "to": "SHIPPED" } }));
}

#[tokio::test]
async fn the_table_takes_the_action_of_every_type_of_event() {
    let world = World::new().await;
    for (version, event_type) in (1_i64..).zip(EventType::ALL) {
        let insert = sqlx::query(
            "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
             VALUES (1, $1, $2, '{}', 1, 1, gen_random_uuid(), now())",
        );
        let inserted = insert.bind(version).bind(event_type.action()).execute(&world.db).await;
        inserted.unwrap_or_else(|error| panic!("widen the CHECK by a migration: {event_type}: {error}"));
    }
}

#[tokio::test]
async fn a_version_is_recorded_once_however_often_and_in_whatever_order_its_event_comes() {
    let world = World::new().await;
    let handler = HistoryHandler::new(world.db.clone(), &Shutdown::new());
    let (first, second, third) = (fresh(event(1, 1)), fresh(event(1, 2)), fresh(event(1, 3)));
    handler.handle(&[second.clone(), first.clone(), second.clone()]).await.unwrap();
    let recorded_at = "SELECT max(recorded_at) FROM order_history WHERE tenant_id = 1 AND version < 3";
    let before: time::OffsetDateTime = sqlx::query_scalar(recorded_at).fetch_one(&world.db).await.unwrap();
    // The first repetition is met by surprise, and the second one expected.
    for _ in 0..2 {
        handler.handle(&[first.clone(), second.clone(), third.clone()]).await.unwrap();
    }
    let after: time::OffsetDateTime = sqlx::query_scalar(recorded_at).fetch_one(&world.db).await.unwrap();
    assert_eq!(world.recorded().await, [(1, 1), (1, 2), (1, 3)]);
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_record_the_same_events_at_once_do_not_wait_for_each_other_in_a_circle() {
    let world = World::new().await;
    let mut events: Vec<HandlerEvent> = (1..=200).map(|id| fresh(event(id, 1))).collect();
    let forwards = events.clone();
    events.reverse();
    for _ in 0..10 {
        sqlx::query("DELETE FROM order_history").execute(&world.db).await.unwrap();
        let tasks = (0..4).map(|worker| {
            let handler = HistoryHandler::new(world.db.clone(), &Shutdown::new());
            let batch = if worker % 2 == 0 { forwards.clone() } else { events.clone() };
            tokio::spawn(async move { handler.handle(&batch).await })
        });
        for task in join_all(tasks).await {
            task.unwrap().unwrap();
        }
        assert_eq!(world.recorded().await.len(), 200);
    }
}

/// Gives a handler these batches, all of which but the first wait until the first is written.
async fn at_once(world: &World, batches: &[Vec<HandlerEvent>]) -> Vec<Result<(), HandlerError>> {
    let handler = HistoryHandler::new(world.db.clone(), &Shutdown::new());
    let mut lock = world.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE order_history IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let (first, others) = batches.split_first().unwrap();
    let release = async {
        testbed::eventually("the first waits for the table", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&world.db).await.unwrap() == 1
        })
        .await;
        // Given when they are looked at for the first time, which comes before the lock is released.
        let others = join_all(others.iter().map(|batch| handler.handle(batch)));
        let (others, done) = tokio::join!(others, lock.commit());
        done.unwrap();
        others
    };
    let (first, others) = tokio::join!(handler.handle(first), release);
    std::iter::once(first).chain(others).collect()
}

#[tokio::test]
async fn batches_that_wait_share_a_statement() {
    let world = World::new().await;
    let batches: Vec<Vec<HandlerEvent>> = (1..=5).map(|id| vec![fresh(event(id, 1))]).collect();
    for done in at_once(&world, &batches).await {
        done.unwrap();
    }
    assert_eq!(world.recorded().await, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
    let transactions = "SELECT count(DISTINCT xmin::text) FROM order_history WHERE tenant_id = 1";
    assert_eq!(sqlx::query_scalar::<_, i64>(transactions).fetch_one(&world.db).await.unwrap(), 2);
}

#[tokio::test]
async fn a_batch_that_is_refused_costs_its_neighbours_nothing() {
    let world = World::new().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on my watch'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON order_history FOR EACH ROW WHEN (NEW.order_id = 3)
         EXECUTE FUNCTION refuse()",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let batches: Vec<Vec<HandlerEvent>> = (1..=5).map(|id| vec![fresh(event(id, 1))]).collect();
    let done = at_once(&world, &batches).await;
    let refused: Vec<bool> = done.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, false, true, false, false]);
    assert_eq!(world.recorded().await, [(1, 1), (2, 1), (4, 1), (5, 1)]);
}
