//! One relay at a time, and always one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::outbox::{Lease, Relay, RelaySettings, RelayStep, Wake};
use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusBuilder;
use shared::{
    broker::{BrokerError, EventSink, EventSystem, PublishOutcome},
    domain::event::Envelope,
    platform::shutdown::Shutdown,
};
use testbed::{eventually, eventually_within};

use crate::outbox_support::{Broker, Log, publish_all, unreachable};

/// What `Relay::start` was given, and what stops it.
struct Running {
    broker: Arc<Broker>,
    wake: Wake,
    shutdown: Shutdown,
}

fn start(log: &Log) -> Running {
    start_with(log, RelaySettings::default())
}

fn start_with(log: &Log, settings: RelaySettings) -> Running {
    let running = Running { broker: Broker::new(), wake: Wake::default(), shutdown: Shutdown::new() };
    let sink = Arc::clone(&running.broker) as Arc<dyn EventSink>;
    Relay::start(settings, &log.pool, sink, running.wake.clone(), &running.shutdown);
    running
}

impl Running {
    async fn stop(&self) {
        self.shutdown.begin();
        assert!(self.shutdown.drained(Duration::from_secs(10)).await, "the relay does not stop");
    }
}

#[tokio::test]
async fn of_two_running_relays_one_publishes_every_event_once() {
    let log = Log::new().await;
    // The lease does not expire while this test lasts, however busy the machine is.
    let settings = RelaySettings { lease: Duration::from_hours(1), ..RelaySettings::default() };
    let (one, two) = (start_with(&log, settings), start_with(&log, settings));
    for burst in 0..20 {
        log.append_many(burst * 50 + 1..=burst * 50 + 50).await;
        // A hint to both, as if each had committed some of it.
        one.wake.notify();
        two.wake.notify();
        eventually("the burst is published", async || {
            one.broker.len() + two.broker.len() >= usize::try_from(burst * 50 + 50).unwrap_or(usize::MAX)
        })
        .await;
    }
    let (by_one, by_two) = (one.broker.take(), two.broker.take());
    assert!(by_one.is_empty() || by_two.is_empty(), "{} and {}", by_one.len(), by_two.len());
    let orders: Vec<i64> = by_one.into_iter().chain(by_two).map(|(order, _)| order).collect();
    assert_eq!(orders, (1..=1000).collect::<Vec<_>>(), "each once, in order");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_killed_relay_is_replaced_within_ten_seconds() {
    let log = Log::new().await;
    let killed = log.relay_with(&Broker::new(), RelaySettings::default());
    killed.relay_once().await.expect("it has the lease");
    // Nothing of it runs any more, and nothing was given back.
    drop(killed);

    let successor = start(&log);
    log.append(1, 1).await;
    // A busy machine gets thirty.
    eventually("another relay publishes", async || successor.broker.take() == [(1, 1)]).await;
    successor.stop().await;
}

#[tokio::test]
async fn a_relay_that_is_stopped_hands_over_at_once() {
    let log = Log::new().await;
    // It does not run out while this test lasts.
    let first =
        start_with(&log, RelaySettings { lease: Duration::from_hours(1), ..RelaySettings::default() });
    log.append(1, 1).await;
    eventually("the first publishes", async || first.broker.len() == 1).await;

    let second = start(&log);
    first.stop().await;
    log.append(2, 1).await;
    eventually("the second publishes", async || second.broker.len() == 1).await;
    second.stop().await;
    assert_eq!(log.relay_row("owner").await, "", "given back");
}

#[tokio::test]
async fn a_relay_whose_broker_does_not_answer_lets_a_replica_relay_whose_broker_does() {
    let log = Log::new().await;
    // The lease does not expire while this test lasts: only its holder can end it.
    let settings = RelaySettings { lease: Duration::from_hours(1), ..RelaySettings::default() };
    let cut_off = start_with(&log, settings);
    log.append(1, 1).await;
    eventually("the first has the lease", async || cut_off.broker.len() == 1).await;
    cut_off.broker.answers(|_| unreachable());
    let well = start_with(&log, settings);
    log.append(2, 1).await;
    cut_off.wake.notify();
    eventually_within(Duration::from_secs(30), "the second publishes", async || {
        well.broker.take() == [(2, 1)]
    })
    .await;

    // Alone, it tries again until its broker is back.
    well.stop().await;
    log.append(3, 1).await;
    eventually("the first tries again", async || !log.relay_row("owner").await.is_empty()).await;
    cut_off.broker.confirms();
    eventually_within(Duration::from_secs(30), "the first publishes", async || {
        cut_off.broker.take().contains(&(3, 1))
    })
    .await;
    cut_off.stop().await;
}

#[tokio::test]
async fn a_stopping_relay_finishes_its_batch_first() {
    let log = Log::new().await;
    let relay = start(&log);
    relay.broker.block();
    log.append(1, 1).await;
    relay.broker.is_asked().await;
    relay.shutdown.begin();
    relay.broker.unblock();
    assert!(relay.shutdown.drained(Duration::from_secs(10)).await);

    assert_eq!(relay.broker.take(), [(1, 1)]);
    let successor = log.relay(&Broker::new());
    assert_eq!(successor.relay_once().await.expect("a step"), RelayStep::Idle, "the cursor is behind it");
}

#[tokio::test]
async fn a_relay_stops_although_the_broker_never_answers() {
    let log = Log::new().await;
    let relay = start(&log);
    relay.broker.block();
    log.append(1, 1).await;
    relay.broker.is_asked().await;
    relay.stop().await;
    let broker = Broker::new();
    assert_eq!(publish_all(&log.relay(&broker)).await, 1, "the lease is free and the event still in the log");
}

#[tokio::test]
async fn a_paused_old_owner_can_publish_late_but_cannot_move_the_position() {
    let log = Log::new().await;
    let (old_broker, broker) = (Broker::new(), Broker::new());
    let settings = RelaySettings { batch: 2, lease: Duration::from_hours(1), ..RelaySettings::default() };
    let old = Arc::new(log.relay_with(&old_broker, settings));
    log.append_many(1..=4).await;

    old_broker.block();
    let paused = tokio::spawn({
        let old = Arc::clone(&old);
        async move { old.relay_once().await }
    });
    old_broker.is_asked().await;
    // For the database its lease has run out; it does not know, as if it had been stopped in the middle.
    log.run("UPDATE relay SET expires_at = '-infinity'").await;
    let new = log.relay_with(&broker, settings);
    assert_eq!(publish_all(&new).await, 4);
    log.append_many(5..=5).await;
    let (published, window) = (log.relay_row("published").await, log.relay_row("window_last").await);

    old_broker.unblock();
    assert_eq!(paused.await.expect("no panic").expect("a step"), RelayStep::Standby);
    assert_eq!(old_broker.take(), [(1, 1), (2, 1)], "late, and harmless");
    assert_eq!(old.relay_once().await.expect("a step"), RelayStep::Standby, "it knows now");
    assert_eq!((log.relay_row("published").await, log.relay_row("window_last").await), (published, window));
    assert_eq!(publish_all(&new).await, 1);
    assert_eq!(broker.take().len(), 5, "nothing is lost");
}

#[tokio::test]
async fn a_lease_from_before_the_clock_was_set_back_is_taken_over() {
    let log = Log::new().await;
    let lifetime = Duration::from_secs(10);
    let (dead, standby) = (Lease::new(log.db.clone(), lifetime), Lease::new(log.db.clone(), lifetime));
    assert!(dead.acquire().await.expect("PostgreSQL answers").is_some());
    assert_eq!(standby.acquire().await.expect("PostgreSQL answers"), None, "it is held");
    log.run("UPDATE relay SET updated_at = updated_at + interval '1 hour', expires_at = expires_at + interval '1 hour'").await;
    assert!(standby.acquire().await.expect("PostgreSQL answers").is_some());
}

#[tokio::test]
async fn a_lease_that_expires_ends_the_batch_in_progress() {
    let log = Log::new().await;
    let (stuck, broker) = (Broker::new(), Broker::new());
    stuck.block();
    let relay = log.relay_with(
        &stuck,
        RelaySettings { batch: 10, lease: Duration::from_millis(300), ..RelaySettings::default() },
    );
    log.append(1, 1).await;
    assert_eq!(relay.relay_once().await.expect("a step"), RelayStep::Standby, "nobody renewed the lease");
    let successor = log.relay(&broker);
    eventually("another relay has it", async || {
        matches!(successor.relay_once().await, Ok(RelayStep::Published { confirmed: 1, .. }))
    })
    .await;
    assert_eq!(stuck.len(), 0);
}

#[tokio::test]
async fn a_slow_batch_keeps_its_lease() {
    let log = Log::new().await;
    let slow = start(&log);
    slow.broker.block();
    log.append(1, 1).await;
    slow.broker.is_asked().await;
    let before = log.relay_row("expires_at").await;
    eventually("the lease is renewed meanwhile", async || log.relay_row("expires_at").await > before).await;
    slow.broker.unblock();
    // Twice, if all of this took longer than a relay waits for its broker.
    eventually("the batch is confirmed", async || slow.broker.len() >= 1).await;
    slow.stop().await;
}

#[tokio::test]
async fn a_relay_survives_the_loss_of_its_connections() {
    let log = Log::new().await;
    let relay = start(&log);
    log.append(1, 1).await;
    eventually("it publishes", async || relay.broker.len() == 1).await;
    log.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'relay'",
    )
    .await;
    log.append(2, 1).await;
    eventually("it publishes again", async || relay.broker.len() >= 2).await;
    relay.stop().await;
}

/// Takes events, except that its first batch ends in a panic.
#[derive(Debug)]
struct Fragile(Arc<Broker>, AtomicBool);

#[async_trait]
impl EventSink for Fragile {
    fn system(&self) -> EventSystem {
        self.0.system()
    }

    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        assert!(self.1.swap(true, Ordering::Relaxed), "the first batch");
        self.0.publish(batch).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn close(&self) {}
}

#[tokio::test]
async fn a_relay_that_panics_is_restarted() {
    let log = Log::new().await;
    let (broker, shutdown) = (Broker::new(), Shutdown::new());
    let sink = Arc::new(Fragile(Arc::clone(&broker), AtomicBool::new(false)));
    Relay::start(RelaySettings::default(), &log.pool, sink, Wake::default(), &shutdown);
    log.append(1, 1).await;
    eventually("the event is published after all", async || broker.take() == [(1, 1)]).await;
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(10)).await, "the relay does not stop");
}

#[tokio::test]
async fn a_running_relay_reports_its_metrics() {
    // Of this thread, on which the whole test runs: other tests of this process count for themselves.
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let log = Log::new().await;
    let relay = start(&log);
    relay.broker.answers(|event| match event.key {
        3 => PublishOutcome::Rejected("too large".to_owned()),
        _ => PublishOutcome::Confirmed,
    });
    log.append_many(1..=3).await;
    let expected = [
        "relay_batches_total{broker=\"local\"} 1\n",
        "relay_published_total{broker=\"local\"} 2\n",
        "relay_rejected_total{broker=\"local\"} 1\n",
        "relay_publish_duration_seconds_count{broker=\"local\"} 1\n",
        "relay_lag_seconds_count{broker=\"local\"} 3\n",
    ];
    eventually("all of it is told", async || {
        let text = recorder.handle().render();
        match expected.iter().find(|line| !text.contains(*line)) {
            None => Ok(()),
            Some(line) => Err(format!("{line:?} is not in\n{text}")),
        }
    })
    .await;
    relay.stop().await;
}
