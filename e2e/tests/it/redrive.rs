//! Ten thousand dead letters are sent again twice while orders are placed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use e2e::{Broker, Client, System};
use sqlx::PgPool;

/// The three events of 3,334 orders.
const LETTERS: i64 = 10_002;
/// The orders of the letters: far from those that the API numbers.
const FIRST_ORDER: i64 = 1_000_000;

/// Sets aside the three events of an order that was created, cancelled and deleted, under the numbers of many others.
async fn set_aside(db: &PgPool, pattern: i64) {
    sqlx::query(
        "INSERT INTO dead_letters (event_id, event_type, order_id, version, body, source, reason, attempts, broker)
         SELECT e.event_id, e.event_type, e.order_id, e.version, convert_to(e.body::text, 'UTF8'), 'history', 'told to', 5, 'local'
         FROM (SELECT o.event_type, o.version, n.order_id, n.event_id,
                      o.payload::jsonb
                      || jsonb_build_object('id', n.event_id, 'subject', n.order_id::text, 'partitionkey', n.order_id::text)
                      || jsonb_build_object('data', (o.payload::jsonb -> 'data') || jsonb_build_object(
                             'order_id', n.order_id,
                             'order', (o.payload::jsonb #> '{data,order}') || jsonb_build_object('id', n.order_id))) AS body
               FROM outbox o, (SELECT $2 + n AS order_id, gen_random_uuid() AS event_id FROM generate_series(1, $3) n) n
               WHERE o.order_id = $1) e
         ORDER BY e.order_id, e.version LIMIT $3",
    )
    .bind(pattern)
    .bind(FIRST_ORDER)
    .bind(LETTERS)
    .execute(db)
    .await
    .expect("the letters are written");
    // What was set aside by mistake: every second order is recorded all the same.
    sqlx::query(
        "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT order_id, version, CASE version WHEN 1 THEN 'CREATED' WHEN 2 THEN 'UPDATED' ELSE 'DELETED' END,
                convert_from(body, 'UTF8')::jsonb #> '{data,changes}', 1, 1, event_id, now()
         FROM dead_letters WHERE order_id % 2 = 0",
    )
    .execute(db)
    .await
    .expect("the history is written");
}

/// What must not change: every row that is there, with the time of its recording.
async fn recorded(db: &PgPool) -> String {
    sqlx::query_scalar(
        "SELECT md5(string_agg(h::text, ',' ORDER BY order_id, version)) FROM order_history h
         WHERE order_id > $1 AND order_id % 2 = 0",
    )
    .bind(FIRST_ORDER)
    .fetch_one(db)
    .await
    .expect("the history is read")
}

async fn count(db: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(db).await.expect("the rows are counted")
}

async fn redriving_twice_during_traffic(broker: Broker) {
    let system = System::new(broker).await;
    let api = system.api().await;
    let _workers = tokio::join!(system.worker(), system.worker());
    let shop = Client::login(&api.url, 1).await.expect("logs in");
    let (pattern, _) = shop.complete_order(0).await.expect("the order lives");
    let db = system.database.connect().await;
    set_aside(&db, pattern).await;
    let right = recorded(&db).await;

    let over = Arc::new(AtomicBool::new(false));
    let traffic = {
        let over = Arc::clone(&over);
        tokio::spawn(async move {
            let mut seed = 1;
            while !over.load(Ordering::SeqCst) {
                shop.complete_order(seed).await?;
                seed += 1;
            }
            anyhow::Ok(seed)
        })
    };
    let ids: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM dead_letters").fetch_all(&db).await.expect("numbers");
    let redrive = || {
        let command = system.worker_command().arg("dead-letters").arg("redrive");
        ids.iter().fold(command, |command, id| command.arg(&id.to_string())).spawn().wait()
    };
    let (one, two) = tokio::join!(redrive(), redrive());
    over.store(true, Ordering::SeqCst);
    let orders = traffic.await.expect("the traffic ran").expect("every request was answered");
    for (status, said) in [one, two] {
        assert!(status.success(), "{said}");
        assert_eq!(said.trim(), format!("sent {LETTERS} events again"));
    }

    testbed::eventually_within(Duration::from_mins(3), "everything is recorded", async || {
        let rows = count(&db, "SELECT count(*) FROM order_history WHERE tenant_id = 1").await;
        if rows == LETTERS + 3 * orders { Ok(()) } else { Err(format!("{rows} rows of the history")) }
    })
    .await;
    // Until the second copies have come too.
    testbed::eventually_within(Duration::from_mins(3), "nothing waits in the broker", async || {
        system.broker.waiting(&system.redis).await == 0
    })
    .await;
    assert_eq!(recorded(&db).await, right, "what was recorded has changed");
    let wrong =
        "SELECT count(*) FROM dead_letters LEFT JOIN order_history USING (order_id, version, event_id)
                 WHERE order_history.order_id IS NULL OR redriven_at IS NULL";
    assert_eq!(count(&db, wrong).await, 0, "letters that are open, or recorded under another id");
    assert_eq!(count(&db, "SELECT count(*) FROM dead_letters").await, LETTERS, "nothing was set aside anew");
    assert_eq!(system.cache_differences(&db).await, Vec::<String>::new());
    db.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redriving_ten_thousand_twice_during_traffic_changes_nothing_that_was_right_on_redis_streams() {
    redriving_twice_during_traffic(Broker::RedisStreams).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redriving_ten_thousand_twice_during_traffic_changes_nothing_that_was_right_on_rabbitmq() {
    redriving_twice_during_traffic(Broker::rabbitmq().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redriving_ten_thousand_twice_during_traffic_changes_nothing_that_was_right_on_sqs() {
    redriving_twice_during_traffic(Broker::sqs().await).await;
}
