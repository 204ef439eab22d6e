//! Workers are killed and restarted under load, on each broker: nothing is lost and nothing doubled.

use std::time::Duration;

use e2e::{Broker, Client, System};
use futures_util::future::try_join_all;
use rand::Rng as _;

const ORDERS: i64 = 1000;
const CLIENTS: i64 = 16;

async fn every_version_is_recorded_once_while_workers_are_killed(broker: Broker) {
    let system = System::new(broker).await;
    let api = system.api().await;
    let clients = (0..CLIENTS).map(|client| {
        let url = api.url.clone();
        tokio::spawn(async move {
            Client::login(&url, client + 1).await?.complete_share(client, CLIENTS, ORDERS).await
        })
    });
    let mut load = tokio::spawn(try_join_all(clients));
    let mut workers = vec![system.worker().await, system.worker().await];
    let mut kills = 0;
    let outcomes = loop {
        // A worker dies at a random moment, while the load goes on.
        let life = Duration::from_millis(rand::rng().random_range(100..1500));
        if let Ok(ended) = tokio::time::timeout(life, &mut load).await {
            break ended.expect("the load ran").expect("every client ran");
        }
        workers.swap_remove(0).kill();
        workers.push(system.worker().await);
        kills += 1;
    };
    for outcome in outcomes {
        outcome.expect("every request was answered");
    }
    assert!(kills > 0, "no worker was killed under load");
    let verdict = system.wait_until_consistent(Duration::from_mins(3)).await;
    assert_eq!(verdict.differences, Vec::<String>::new());
    assert_eq!((verdict.events, verdict.history), (3 * ORDERS, 3 * ORDERS));
    assert_eq!(verdict.orders, ORDERS - (ORDERS + 2) / 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_workers_loses_and_doubles_nothing_on_redis_streams() {
    every_version_is_recorded_once_while_workers_are_killed(Broker::RedisStreams).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_workers_loses_and_doubles_nothing_on_rabbitmq() {
    every_version_is_recorded_once_while_workers_are_killed(Broker::rabbitmq().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_workers_loses_and_doubles_nothing_on_sqs() {
    every_version_is_recorded_once_while_workers_are_killed(Broker::sqs().await).await;
}
