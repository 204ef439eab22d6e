//! What a batch may come to, and that only what the broker confirmed is behind the cursor.

use std::time::Duration;

use api::outbox::{RelaySettings, RelayStep, backlog};
use shared::broker::{BrokerError, EventSystem, PublishOutcome};
use sqlx::Row as _;

use crate::outbox_support::{Broker, Log, publish_all, unreachable};

#[tokio::test]
async fn a_full_broker_is_waited_for_while_new_events_get_their_positions() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    log.append_many(1..=3).await;
    broker.answers(|event| match event.key {
        1 => PublishOutcome::Confirmed,
        _ => PublishOutcome::Retry(BrokerError::Full {
            system: EventSystem::RedisStreams,
            message: "told so by the test".to_owned(),
        }),
    });
    for _ in 0..2 {
        assert_eq!(relay.relay_once().await.expect("a step"), RelayStep::BrokerFull { events: 2 });
    }
    log.append(4, 1).await;
    assert_eq!(relay.sequence_once().await.expect("positions"), 1);
    broker.confirms();
    assert_eq!(publish_all(&relay).await, 3);
    assert_eq!(broker.take(), [(1, 1), (2, 1), (3, 1), (4, 1)]);
}

#[tokio::test]
async fn an_event_is_sent_as_it_was_written() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    let id = uuid::Uuid::now_v7();
    let body = r#"{ "b": 1.50, "a":"Grüße", "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }"#;
    sqlx::query(
        "INSERT INTO outbox (event_id, event_type, order_id, version, payload)
         VALUES ($1, 'OrderCreated', 7, 1, $2)",
    )
    .bind(id)
    .bind(body)
    .execute(&log.db)
    .await
    .expect("the event is written");

    publish_all(&relay).await;
    let sent = broker.take_events().pop().expect("an event");
    assert_eq!((sent.id, sent.event_type.as_str(), sent.key, sent.sequence), (id, "OrderCreated", 7, 1));
    assert_eq!(sent.body, body, "byte for byte, with its trace");
}

#[tokio::test]
async fn an_unconfirmed_event_stays_in_the_log_and_is_published_before_all_later_ones() {
    let log = Log::new().await;
    let broker = Broker::new();
    let settings = RelaySettings { batch: 3, lease: Duration::from_hours(1), ..RelaySettings::default() };
    let relay = log.relay_with(&broker, settings);
    for version in 1..=6 {
        log.append(1, version).await;
    }
    broker.answers(|event| if event.sequence >= 2 { unreachable() } else { PublishOutcome::Confirmed });

    for _ in 0..3 {
        assert_eq!(relay.relay_once().await.expect("a step"), RelayStep::Unconfirmed { events: 2 });
    }
    assert_eq!(broker.take(), [(1, 1)], "nothing goes ahead of it");
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 5);

    // Neither does a relay that begins anew lose it.
    relay.release().await.expect("the lease is given back");
    let successor = log.relay_with(&broker, settings);
    assert_eq!(successor.relay_once().await.expect("a step"), RelayStep::Unconfirmed { events: 3 });
    broker.confirms();
    assert_eq!(publish_all(&successor).await, 5);
    assert_eq!(broker.take(), [(1, 2), (1, 3), (1, 4), (1, 5), (1, 6)]);
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 0);
}

#[tokio::test]
async fn an_event_without_an_outcome_of_the_broker_is_not_confirmed() {
    #[derive(Debug)]
    struct Terse;
    #[async_trait::async_trait]
    impl shared::broker::EventSink for Terse {
        fn system(&self) -> shared::broker::EventSystem {
            shared::broker::EventSystem::Sqs
        }
        async fn publish(&self, _: &[shared::domain::event::Envelope]) -> Vec<PublishOutcome> {
            vec![PublishOutcome::Confirmed]
        }
        async fn check(&self) -> Result<(), shared::broker::BrokerError> {
            Ok(())
        }
        async fn close(&self) {}
    }

    let log = Log::new().await;
    let relay = api::outbox::Relay::new(log.db.clone(), std::sync::Arc::new(Terse), RelaySettings::default());
    log.append_many(1..=3).await;
    assert_eq!(relay.relay_once().await.expect("a step"), RelayStep::Unconfirmed { events: 2 });
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 2);
}

#[tokio::test]
async fn a_rejected_event_is_a_dead_letter_and_the_relay_continues() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    log.append_many(1..=3).await;
    broker.answers(|event| match event.key {
        2 => PublishOutcome::Rejected("too large".to_owned()),
        _ => PublishOutcome::Confirmed,
    });

    let step = relay.relay_once().await.expect("a step");
    assert_eq!(step, RelayStep::Published { confirmed: 2, rejected: 1, more: false });
    assert_eq!(relay.relay_once().await.expect("a step"), RelayStep::Idle);
    assert_eq!(broker.take(), [(1, 1), (3, 1)]);

    let letters = sqlx::query(
        "SELECT d.order_id, d.version, d.source, d.reason, d.attempts, d.broker,
                d.event_id = o.event_id AND d.event_type = o.event_type AND d.body = convert_to(o.payload, 'UTF8')
         FROM dead_letters d JOIN outbox o USING (order_id)",
    )
    .fetch_all(&log.db)
    .await
    .expect("the dead letters");
    let [letter] = letters.as_slice() else { panic!("{} dead letters", letters.len()) };
    assert_eq!((letter.get::<i64, _>(0), letter.get::<i64, _>(1)), (2, 1));
    assert_eq!((letter.get::<&str, _>(2), letter.get::<&str, _>(3)), ("publish", "too large"));
    assert_eq!((letter.get::<i32, _>(4), letter.get::<&str, _>(5)), (1, "local"));
    assert!(letter.get::<bool, _>(6), "the event as it is in the log");
}

#[tokio::test]
async fn a_window_of_many_pages_is_continued_after_the_page_at_which_another_relay_stopped() {
    let log = Log::new().await;
    let broker = Broker::new();
    let settings = RelaySettings { batch: 10, lease: Duration::from_hours(1), ..RelaySettings::default() };
    log.append_many(1..=45).await;

    let first = log.relay_with(&broker, settings);
    for _ in 0..2 {
        let step = first.relay_once().await.expect("a step");
        assert_eq!(step, RelayStep::Published { confirmed: 10, rejected: 0, more: true });
    }
    first.release().await.expect("the lease is given back");
    let second = log.relay_with(&broker, settings);
    assert_eq!(publish_all(&second).await, 25);
    let orders: Vec<i64> = broker.take().into_iter().map(|(order, _)| order).collect();
    assert_eq!(orders, (1..=45).collect::<Vec<_>>(), "each once, in order");
}

#[tokio::test]
async fn a_full_last_page_ends_its_window() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay_with(
        &broker,
        RelaySettings { batch: 10, lease: Duration::from_hours(1), ..RelaySettings::default() },
    );
    log.append_many(1..=20).await;
    assert_eq!(publish_all(&relay).await, 20);
    assert_eq!(log.relay_row("window_end").await, "", "no window is left open");
    log.append_many(21..=21).await;
    assert_eq!(publish_all(&relay).await, 1);
    assert_eq!(broker.len(), 21);
}

#[tokio::test]
async fn an_idle_relay_writes_nothing() {
    let log = Log::new().await;
    let relay = log.relay(&Broker::new());
    assert_eq!(relay.relay_once().await.expect("a step"), RelayStep::Idle);
    let before = log.relay_row("xmin").await;
    for _ in 0..5 {
        log.run("SELECT pg_current_xact_id()").await;
        assert_eq!(relay.relay_once().await.expect("a step"), RelayStep::Idle);
    }
    assert_eq!(log.relay_row("xmin").await, before, "the row is the same version");
}
