//! The log's days: made ahead, found again when rows were there first, dropped when nothing needs them.

use api::outbox::{PartitionReport, PartitionSettings, maintain_partitions};
use shared::{domain::clock::Clock, platform::db::DbError};
use sqlx::Connection as _;
use testbed::eventually;
use time::Duration;

use crate::outbox_support::{Broker, Log, publish_all};

const SETTINGS: PartitionSettings = PartitionSettings { ahead: 3, retention: 7 };

impl Log {
    /// Days relative to today that have a partition, in order.
    async fn days(&self) -> Vec<i32> {
        sqlx::query_scalar(
            "SELECT to_date(right(c.relname, 8), 'YYYYMMDD') - (now() AT TIME ZONE 'UTC')::date
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'outbox'::regclass AND c.relname <> 'outbox_default' ORDER BY 1",
        )
        .fetch_all(&self.db)
        .await
        .expect("the partitions")
    }

    /// Commits an event of some days ago, or ahead.
    async fn append_on(&self, day: i32, order: i64) {
        sqlx::query(
            "INSERT INTO outbox (day, event_id, event_type, order_id, version, payload)
             VALUES ((now() AT TIME ZONE 'UTC')::date + $1, gen_random_uuid(), 'OrderCreated', $2, 1, '{}')",
        )
        .bind(day)
        .bind(order)
        .execute(&self.db)
        .await
        .expect("the event is written");
    }

    /// One round, on a day of the API's clock that is so many days from the database's.
    async fn maintain_on(&self, day: i32) -> Result<PartitionReport, DbError> {
        let today = Clock::System.now().date() + Duration::days(day.into());
        maintain_partitions(&self.pool, SETTINGS, today).await
    }

    async fn maintain(&self) -> Result<PartitionReport, DbError> {
        self.maintain_on(0).await
    }

    async fn in_default(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox_default").fetch_one(&self.db).await.expect("a count")
    }

    async fn drop_days(&self) {
        for day in -20..=20 {
            sqlx::query("SELECT outbox_drop_partition((now() AT TIME ZONE 'UTC')::date + $1::integer)")
                .bind(day)
                .execute(&self.db)
                .await
                .expect("the day is gone");
        }
    }

    async fn make_day(&self, day: i32) {
        sqlx::query("SELECT outbox_create_partition((now() AT TIME ZONE 'UTC')::date + $1::integer)")
            .bind(day)
            .execute(&self.db)
            .await
            .expect("the day is there");
    }
}

#[tokio::test]
async fn the_first_event_of_a_new_database_already_has_a_partition() {
    let log = Log::new().await;
    assert_eq!(log.days().await, [0, 1, 2, 3]);
    log.append(1, 1).await;
    assert_eq!(log.in_default().await, 0);
}

#[tokio::test]
async fn partitions_are_created_ahead_once_even_by_several_replicas_at_the_same_time() {
    let log = Log::new().await;
    log.drop_days().await;
    let rounds = futures_util::future::join_all((0..4).map(|_| log.maintain())).await;
    let created: usize = rounds.into_iter().map(|round| round.expect("a round").created.len()).sum();
    assert_eq!(created, 4);
    assert_eq!(log.days().await, [0, 1, 2, 3]);
    assert_eq!(log.maintain().await.expect("a round"), PartitionReport::default());
}

#[tokio::test]
async fn rows_that_were_inserted_before_their_partition_move_into_it_and_are_published_once() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    log.drop_days().await;
    log.append_on(0, 1).await;
    log.append_on(-2, 2).await;
    assert_eq!(publish_all(&relay).await, 2);
    log.append_on(0, 3).await;
    log.append_on(2, 4).await;
    log.append_on(9, 5).await;
    assert_eq!(log.in_default().await, 5);

    log.maintain().await.expect("a round");
    assert_eq!(log.days().await, [-2, 0, 1, 2, 3]);
    assert_eq!(log.in_default().await, 1, "the day of the last is far off");
    assert_eq!(publish_all(&relay).await, 3);
    assert_eq!(broker.take(), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
}

#[tokio::test]
async fn days_past_the_retention_are_dropped_once_their_events_are_published_and_in_the_history() {
    let log = Log::new().await;
    let relay = log.relay(&Broker::new());
    for day in [-30, -9, -8, -7] {
        log.make_day(day).await;
    }
    log.append_on(-8, 1).await;
    log.append_on(-30, 2).await;
    log.append_on(0, 3).await;

    // Nothing is published yet: only the empty day goes.
    let kept = log.maintain().await.expect("a round");
    assert_eq!((kept.dropped.len(), kept.kept.len()), (1, 2));
    assert_eq!(log.days().await, [-30, -8, -7, 0, 1, 2, 3]);

    // Published, but no history has it: what is twice as old as the retention goes.
    publish_all(&relay).await;
    log.maintain().await.expect("a round");
    assert_eq!(log.days().await, [-8, -7, 0, 1, 2, 3]);

    // The reconciler has found it there.
    log.run("UPDATE relay SET reconciled = (SELECT max(id) FROM outbox)").await;
    log.maintain().await.expect("a round");
    assert_eq!(log.days().await, [-7, 0, 1, 2, 3]);
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&log.db).await.expect("a count");
    assert_eq!(left, 1);
}

#[tokio::test]
async fn if_the_databases_clock_is_ahead_no_day_is_dropped_before_its_time() {
    let log = Log::new().await;
    let relay = log.relay(&Broker::new());
    log.make_day(-9).await;
    log.append_on(-9, 1).await;
    log.append_on(-10, 2).await;
    publish_all(&relay).await;
    log.run("UPDATE relay SET reconciled = (SELECT max(id) FROM outbox)").await;
    // For the API, these days are within the retention.
    for ahead in [-20, -3] {
        let report = log.maintain_on(ahead).await.expect("a round");
        assert_eq!((report.dropped, report.kept), (Vec::new(), Vec::new()));
        assert_eq!(log.in_default().await, 1);
    }
    assert_eq!(log.maintain().await.expect("a round").dropped.len(), 1);
    assert_eq!(log.in_default().await, 0);
}

#[tokio::test]
async fn rows_of_the_default_partition_past_the_retention_are_deleted_once_they_are_not_needed() {
    let log = Log::new().await;
    let relay = log.relay(&Broker::new());
    log.append_on(-9, 1).await;
    log.append_on(-10, 2).await;
    log.maintain().await.expect("a round");
    assert_eq!(log.in_default().await, 2, "not published yet");
    publish_all(&relay).await;
    log.run("UPDATE relay SET reconciled = (SELECT max(id) FROM outbox)").await;
    log.maintain().await.expect("a round");
    assert_eq!(log.in_default().await, 0);
}

#[tokio::test]
async fn an_open_reader_delays_a_partition_but_no_writer() {
    let log = Log::new().await;
    log.drop_days().await;
    let mut connection = log.connection().await;
    let mut reader = connection.begin().await.expect("a transaction");
    sqlx::query("SELECT count(*) FROM outbox").execute(&mut *reader).await.expect("a read");

    log.maintain().await.expect_err("the reader is in the way");
    log.append(1, 1).await;
    reader.rollback().await.expect("the end");
    eventually("the next round makes it", async || log.maintain().await.map(|_| ())).await;
    assert_eq!(log.days().await, [0, 1, 2, 3]);
    assert_eq!(log.in_default().await, 0);
}

#[tokio::test]
async fn writers_continue_while_partitions_are_created() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    log.drop_days().await;
    let mut refused = 0;
    for day in 0..=3 {
        let writers = futures_util::future::join_all((0..8).map(|order| {
            let db = log.db.clone();
            async move {
                sqlx::query(
                    "INSERT INTO outbox (day, event_id, event_type, order_id, version, payload)
                     VALUES ((now() AT TIME ZONE 'UTC')::date + $1, gen_random_uuid(), 'OrderCreated', $2, 1, '{}')",
                )
                .bind(day)
                .bind(order)
                .execute(&db)
                .await
            }
        }));
        let maintenance = async {
            log.make_day(day).await;
        };
        let (written, ()) = tokio::join!(writers, maintenance);
        // One that was on its way into the default partition may be refused; its transaction is then tried again.
        refused += written.iter().filter(|result| result.is_err()).count();
    }
    let published = publish_all(&relay).await;
    assert_eq!(published, u64::try_from(32 - refused).expect("a count"));
    assert_eq!(log.in_default().await, 0);
}
