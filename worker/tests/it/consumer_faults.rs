//! Events that fail by their own fault cost only themselves.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use shared::{
    broker::connect_sink,
    domain::event::{Envelope, Event},
    platform::shutdown::Shutdown,
};
use uuid::Uuid;
use worker::handlers::EventHandler;

use crate::support::{
    World, consume,
    events::event,
    handlers::{Fault, Faulty},
    impatient,
};

fn events(ids: std::ops::RangeInclusive<i64>) -> Vec<Event> {
    ids.map(|id| event(id, 1)).collect()
}

/// Ten events of which the one of order 4 has this fault, and the history.
async fn one_of_ten(fault: Fault) -> (World, Arc<Faulty>, worker::consumer::BatchSummary) {
    let world = World::new().await;
    world.publish(&events(1..=10)).await;
    let mut settings = impatient();
    if matches!(fault, Fault::Hang) {
        settings.handler_deadline = Duration::from_secs(2);
    }
    let faulty = Faulty::new([(4, fault)]);
    let mut handlers = world.handlers();
    handlers.push(Arc::clone(&faulty) as Arc<dyn EventHandler>);
    let consumer = world.consumer_with(settings, world.db.clone(), handlers, Shutdown::new()).await;
    let summary = consume(&consumer, 10).await;
    (world, faulty, summary)
}

/// Only order 4 was set aside, and all others are done.
async fn assert_only_order_4_is_a_dead_letter(world: &World, faulty: &Faulty, attempts: i32, reason: &str) {
    let letters = world.dead_letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let (order, source, seen, why) = &letters[0];
    assert_eq!((*order, source.as_str(), *seen), (Some(4), "faulty", attempts));
    assert!(why.contains(reason), "{why}");
    assert_eq!(faulty.handled(), [1, 2, 3, 5, 6, 7, 8, 9, 10]);
    // The handlers are independent: what one refuses, the others still do.
    assert_eq!(world.recorded().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_fails_only_the_event_that_it_panics_on() {
    let (world, faulty, summary) = one_of_ten(Fault::Panic).await;
    assert_only_order_4_is_a_dead_letter(&world, &faulty, 5, "panicked: told to panic").await;
    assert_eq!((summary.handled, summary.retried, summary.dead_lettered), (9, 4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_fails_only_the_event_that_it_hangs_on() {
    let (world, faulty, _) = one_of_ten(Fault::Hang).await;
    assert_only_order_4_is_a_dead_letter(&world, &faulty, 5, "did not answer within").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_can_never_succeed_is_a_dead_letter_after_its_first_attempt() {
    let (world, faulty, summary) = one_of_ten(Fault::Permanent).await;
    assert_only_order_4_is_a_dead_letter(&world, &faulty, 1, "told to refuse").await;
    assert_eq!((summary.handled, summary.retried, summary.dead_lettered), (9, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_for_a_while_is_retried_until_it_succeeds() {
    // Twice in its batch and alone, then twice more alone.
    let (world, faulty, summary) = one_of_ten(Fault::Transient(4)).await;
    assert_eq!(world.dead_letters().await, []);
    assert_eq!(faulty.handled(), (1..=10).collect::<Vec<_>>());
    assert_eq!((summary.handled, summary.retried, summary.dead_lettered), (10, 3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_violates_a_constraint_is_a_dead_letter_and_its_batch_is_recorded() {
    let world = World::new().await;
    sqlx::query("ALTER TABLE order_history ADD CHECK (order_id <> 4)").execute(&world.db).await.unwrap();
    world.publish(&events(1..=10)).await;
    let summary = consume(&world.consumer(world.handlers()).await, 10).await;
    assert_eq!((summary.handled, summary.dead_lettered), (9, 1));
    let letters = world.dead_letters().await;
    assert_eq!((letters[0].0, letters[0].1.as_str(), letters[0].2), (Some(4), "history", 1));
    assert_eq!(world.recorded().await.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_body_is_stored_unchanged_as_a_dead_letter_and_its_neighbours_are_handled() {
    let world = World::new().await;
    let sink = connect_sink(&world.broker()).await.unwrap();
    let odd = |body: &str| Envelope {
        id: Uuid::now_v7(),
        event_type: "OrderCreated".to_owned(),
        key: 1,
        sequence: 1,
        position: None,
        body: body.to_owned(),
    };
    let newer = event(3, 1).to_envelope().body.replace(r#""schemaversion":1"#, r#""schemaversion":2"#);
    let bodies = ["not json at all ✗\u{0}", "{}", newer.as_str()];
    let mut batch: Vec<Envelope> = bodies.iter().map(|body| odd(body)).collect();
    batch.insert(1, event(1, 1).to_envelope());
    batch.push(event(2, 1).to_envelope());
    sink.publish(&batch).await;

    let faulty = Faulty::new([]);
    let consumer = world.consumer(vec![Arc::clone(&faulty) as Arc<dyn EventHandler>]).await;
    let summary = consume(&consumer, 5).await;
    assert_eq!((summary.handled, summary.retried, summary.dead_lettered), (2, 0, 3));
    assert_eq!((faulty.handled(), faulty.calls.load(Ordering::SeqCst)), (vec![1, 2], 1));
    let letters: Vec<(String, i32, Vec<u8>, Option<Uuid>)> =
        sqlx::query_as("SELECT source, attempts, body, event_id FROM dead_letters ORDER BY id")
            .fetch_all(&world.db)
            .await
            .unwrap();
    let expected = bodies.map(|body| ("parse".to_owned(), 1, body.as_bytes().to_vec(), None));
    assert_eq!(letters, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_fails_again_is_one_row_that_is_open_again() {
    let world = World::new().await;
    let event = event(4, 1);
    let faulty = Faulty::new([(4, Fault::Permanent)]);
    let consumer = world.consumer(vec![faulty as Arc<dyn EventHandler>]).await;
    for _ in 0..2 {
        world.publish(std::slice::from_ref(&event)).await;
        assert_eq!(consume(&consumer, 1).await.dead_lettered, 1);
        let open: bool = sqlx::query_scalar("SELECT redriven_at IS NULL FROM dead_letters")
            .fetch_one(&world.db)
            .await
            .unwrap();
        assert!(open);
        sqlx::query("UPDATE dead_letters SET redriven_at = now()").execute(&world.db).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_twice_in_a_batch_is_handled_once() {
    let world = World::new().await;
    let event = event(1, 1);
    world.publish(&[event.clone(), event.clone(), event]).await;
    let summary = consume(&world.consumer(world.handlers()).await, 3).await;
    assert_eq!((summary.handled, summary.dead_lettered), (3, 0));
    assert_eq!(world.recorded().await, [(1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_event_does_not_come_again() {
    let world = World::new().await;
    world.publish(&events(1..=10)).await;
    let consumer = world.consumer(world.handlers()).await;
    consume(&consumer, 10).await;
    let source = world.source().await;
    assert_eq!(source.backlog().await.unwrap().messages, 0);
    assert_eq!(source.receive(10, Duration::from_millis(300)).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_attempts_all_ended_without_an_outcome_is_a_dead_letter_without_another() {
    let world = World::new().await;
    world.publish(&events(1..=1)).await;
    for attempt in 1..=3 {
        let source = world.source().await;
        let taken = testbed::eventually("it is taken", async || {
            source.receive(10, Duration::from_millis(100)).await.ok()?.pop()
        })
        .await;
        assert_eq!(taken.attempt, attempt);
        source.close().await;
    }
    let faulty = Faulty::new([]);
    let settings = worker::consumer::ConsumerSettings { max_attempts: 1, ..impatient() };
    let handlers = vec![Arc::clone(&faulty) as Arc<dyn EventHandler>];
    let consumer = world
        .consumer_with(settings, world.db.clone(), handlers, shared::platform::shutdown::Shutdown::new())
        .await;
    assert_eq!(consume(&consumer, 1).await.dead_lettered, 1);
    assert_eq!(faulty.calls.load(Ordering::SeqCst), 0);
    let letters = world.dead_letters().await;
    assert_eq!((letters[0].1.as_str(), letters[0].2), ("consumer", 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_version_or_time_is_out_of_range_is_a_dead_letter_and_its_neighbours_are_recorded() {
    let world = World::new().await;
    let at = |version: i64| shared::domain::order::Order { version, ..crate::support::events::order(1, 1) };
    let template = event(1, 1);
    let happened = || shared::domain::event::Happened {
        time: template.time,
        performed_by: template.data.order.owner(),
        traceparent: None,
    };
    let created = Event::created(at(i64::MAX), happened()).to_envelope();
    let updated = Event::updated(&at(1), at(i64::MAX), happened()).to_envelope();
    let written = shared::domain::timestamp::format(template.time);
    // In UTC it is in the year 10000.
    let body = template.to_envelope().body.replace(&written, "9999-12-31T23:59:59-23:59");
    let late = Envelope { body, ..template.to_envelope() };
    let sink = connect_sink(&world.broker()).await.unwrap();
    let outcomes = sink.publish(&[created, updated, late, event(2, 1).to_envelope()]).await;
    assert_eq!(outcomes.len(), 4);
    sink.close().await;
    let summary = consume(&world.consumer(world.handlers()).await, 4).await;
    assert_eq!((summary.handled, summary.dead_lettered), (1, 3));
    assert_eq!(world.recorded().await, [(2, 1)]);
    assert!(world.dead_letters().await.iter().all(|(_, source, ..)| source == "parse"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_entry_without_an_event_is_a_dead_letter_with_its_fields() {
    let world = World::new().await;
    let consumer = world.consumer(world.handlers()).await;
    let mut redis = world.redis.connect().await;
    let entry = ["order", "7", "note", "\u{1b}[2J"];
    let added = redis::cmd("XADD").arg("events:orders").arg("*").arg(&entry).exec_async(&mut redis).await;
    added.unwrap();
    assert_eq!(consume(&consumer, 1).await.dead_lettered, 1);
    let body: Vec<u8> =
        sqlx::query_scalar("SELECT body FROM dead_letters").fetch_one(&world.db).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body, serde_json::json!({"fields": [["order", "7"], ["note", "\u{1b}[2J"]]}));
    let shown = world.worker(&["dead-letters", "show", "1"]).await.ok();
    assert!(shown.contains(r"\u001b[2J"), "{shown}");
}
