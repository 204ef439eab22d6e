//! The API is killed at random moments: no order without its events, no event without its order.

use std::time::Duration;

use e2e::{Broker, Client, System};
use futures_util::future::try_join_all;
use rand::Rng as _;
use reqwest::{Method, StatusCode};
use serde_json::json;

const ORDERS: i64 = 300;
const CLIENTS: i64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_api_leaves_no_order_without_its_events_and_no_event_without_its_order() {
    let system = System::new(Broker::RedisStreams).await;
    let port = testbed::free_port();
    let mut api = system.api_at(port).await;
    let _worker = system.worker().await;
    let clients: Vec<Client> = try_join_all((0..CLIENTS).map(|client| Client::login(&api.url, client + 1)))
        .await
        .expect("every client logs in");
    let loads = clients
        .into_iter()
        .zip(0..)
        .map(|(shop, client)| tokio::spawn(shop.complete_share(client, CLIENTS, ORDERS)));
    let mut load = tokio::spawn(try_join_all(loads));
    let mut kills = 0;
    let outcomes = loop {
        // The moment of death is what this test is about: any.
        let life = Duration::from_millis(rand::rng().random_range(50..400));
        if let Ok(ended) = tokio::time::timeout(life, &mut load).await {
            break ended.expect("the load ran").expect("every client ran");
        }
        api.program.kill();
        api = system.api_at(port).await;
        kills += 1;
    };
    for outcome in outcomes {
        outcome.expect("every request was answered in the end");
    }
    assert!(kills > 0, "the API was never killed");
    let verdict = system.wait_until_consistent(Duration::from_mins(2)).await;
    assert_eq!(verdict.differences, Vec::<String>::new());
    // A repeated request under one key takes effect once, however often the API died on it.
    assert_eq!(verdict.events, 3 * ORDERS);
    no_key_is_stuck(&api.url).await;
}

/// Whatever the API died on, another replica answers each key, at once, with the answer that was given.
async fn no_key_is_stuck(url: &str) {
    let clients: Vec<Client> =
        try_join_all((0..CLIENTS).map(|client| Client::login(url, client + 1))).await.expect("they log in");
    for (seed, client) in (0..ORDERS).zip(clients.iter().cycle()) {
        let key = format!("create-{seed}");
        let again =
            client.request_once(Method::POST, "/api/v1/orders", Some(&Client::order(seed)), Some(&key)).await;
        let (status, answer) = again.expect("an answer");
        assert_eq!((status, &answer["version"]), (StatusCode::CREATED, &json!(1)), "{key}: {answer}");
    }
}
