//! A replica of the API is killed between its commit and its answer, and the client repeats its request on another one:
//! whatever that answers, no later read is older. Without workers, which would correct the cache.

use std::time::Duration;

use e2e::{Api, Broker, Client, System};
use futures_util::future::join_all;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use testbed::{Proxy, eventually};

/// Two replicas, of which one reaches Redis through a proxy.
struct Shop {
    system: System,
    db: PgPool,
    /// Logged in at the replica that lives.
    client: Client,
    /// Lives through the whole test.
    living: Api,
}

/// One request with a key.
struct Keyed {
    id: i64,
    method: Method,
    body: Option<Value>,
    key: String,
}

impl Keyed {
    fn path(&self) -> String {
        format!("/api/v1/orders/{}", self.id)
    }

    async fn send(&self, client: &Client, key: Option<&str>) -> anyhow::Result<(StatusCode, Value)> {
        client.request_once(self.method.clone(), &self.path(), self.body.as_ref(), key).await
    }
}

impl Shop {
    async fn open() -> Self {
        let system = System::new(Broker::RedisStreams).await;
        let living = system.api().await;
        let client = Client::login(&living.url, 1).await.expect("the customer logs in");
        Self { db: system.database.connect().await, system, client, living }
    }

    /// A replica that will be killed, its way to Redis, and the customer calling it.
    async fn doomed(&self) -> (Api, Proxy, Client) {
        let proxy = self.system.redis_proxy().await;
        let doomed = self.system.api_behind(&proxy).await;
        let client = self.client.at(&doomed.url);
        (doomed, proxy, client)
    }

    /// Places orders and has them cached as they are at first.
    async fn cached_orders(&self, count: i64) -> Vec<i64> {
        let mut redis = self.system.redis.connect().await;
        let mut ids = Vec::new();
        for seed in 0..count {
            let body = Client::order(seed);
            let placed = self.client.request_once(Method::POST, "/api/v1/orders", Some(&body), None).await;
            let (status, order) = placed.expect("an answer");
            assert_eq!(status, StatusCode::CREATED, "{order}");
            let id = order["id"].as_i64().expect("an id");
            eventually("the order is cached", async || {
                let path = format!("/api/v1/orders/{id}");
                let read = self.client.request_once(Method::GET, &path, None, None).await;
                read.expect("an answer");
                let key = format!("cache:order:{id}");
                let exists = redis::cmd("EXISTS").arg(key).query_async::<bool>(&mut redis).await;
                exists.expect("Redis answers")
            })
            .await;
            ids.push(id);
        }
        ids
    }

    /// Waits until this request is committed.
    async fn committed(&self, request: &Keyed) {
        eventually("the request is committed", async || {
            let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM idempotency_keys WHERE key = $1")
                .bind(&request.key)
                .fetch_one(&self.db)
                .await
                .expect("the keys are read");
            kept == 1
        })
        .await;
    }

    /// Asks the living replica, with the key or without, and reads: never older than the answer.
    async fn ask_and_read(&self, request: &Keyed, key: Option<&str>) -> StatusCode {
        // The database may not know yet that the killed replica is gone, and keep its key and its locks.
        let (method, body) = (request.method.clone(), request.body.as_ref());
        let answered = self.client.repeat_until_answered(method, &request.path(), body, key).await;
        let (status, answer) = answered.expect("an answer");
        let read = self.client.repeat_until_answered(Method::GET, &request.path(), None, None).await;
        let (read_status, read) = read.expect("an answer");
        let context = format!(
            "order {}: {} was answered {status} {answer}, then read {read_status} {read}",
            request.id, request.method
        );
        match status {
            StatusCode::OK => {
                assert_eq!(read_status, StatusCode::OK, "{context}");
                assert!(read["version"].as_i64() >= answer["version"].as_i64(), "{context}");
            }
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => {
                assert_eq!(read_status, StatusCode::NOT_FOUND, "{context}");
            }
            other => panic!("{other} was not expected: {context}"),
        }
        status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_replayed_answer_no_read_is_older_though_the_replica_died_before_its_cache_write() {
    let shop = Shop::open().await;
    let (doomed, proxy, client) = shop.doomed().await;
    let ids = shop.cached_orders(4).await;
    let shipped = || Some(json!({"status": "SHIPPED"}));
    let requests: Vec<Keyed> = [
        (Method::PUT, shipped()),
        (Method::PATCH, Some(json!({"order_date": "2024-12-31"}))),
        (Method::DELETE, None),
        (Method::PUT, shipped()),
    ]
    .into_iter()
    .zip(ids)
    .map(|((method, body), id)| Keyed { id, method, body, key: format!("key-{id}") })
    .collect();

    // What it commits from here on does not reach the cache.
    proxy.freeze();
    let sent = join_all(requests.iter().map(|request| request.send(&client, Some(&request.key))));
    let killed = async {
        for request in &requests {
            shop.committed(request).await;
        }
        doomed.program.kill();
    };
    let (_answered_or_not, ()) = tokio::join!(sent, killed);

    let [changed, dated, deleted, repeated] = &requests[..] else { panic!("four requests") };
    for (request, expected) in
        [(changed, StatusCode::OK), (dated, StatusCode::OK), (deleted, StatusCode::NO_CONTENT)]
    {
        assert_eq!(shop.ask_and_read(request, Some(&request.key)).await, expected);
    }
    // Without the key it is a change that changes nothing.
    assert_eq!(shop.ask_and_read(repeated, None).await, StatusCode::OK);
    drop(proxy);
    shop.living.program.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_a_replica_is_killed_no_read_is_older_than_an_answer_of_the_other() {
    const ROUNDS: u32 = 6;
    const ORDERS: i64 = 6;
    let seed: u64 = rand::rng().random();
    println!("the seed is {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let shop = Shop::open().await;
    for round in 0..ROUNDS {
        let (doomed, proxy, client) = shop.doomed().await;
        let requests: Vec<Keyed> = shop
            .cached_orders(ORDERS)
            .await
            .into_iter()
            .map(|id| {
                let (method, body) = match random.random_range(0..3) {
                    0 => (Method::DELETE, None),
                    1 => (Method::PATCH, Some(json!({"order_date": "2024-12-31"}))),
                    _ => (Method::PUT, Some(json!({"status": "SHIPPED"}))),
                };
                Keyed { id, method, body, key: format!("key-{round}-{id}") }
            })
            .collect();
        // On a slow way the moment between the commit and the cache write is long, on a frozen one it has no end.
        match random.random_range(0..3) {
            0 => proxy.freeze(),
            1 => proxy.delay(Duration::from_millis(20)),
            _ => {}
        }
        // The moment of death is what this test is about: any.
        let life = Duration::from_millis(random.random_range(0..60));
        let sent = join_all(requests.iter().map(|request| request.send(&client, Some(&request.key))));
        let killed = async {
            tokio::time::sleep(life).await;
            doomed.program.kill();
        };
        let (_answered_or_not, ()) = tokio::join!(sent, killed);
        for request in &requests {
            let key = random.random_bool(0.7).then_some(request.key.as_str());
            shop.ask_and_read(request, key).await;
        }
    }
    shop.living.program.terminate().await;
}
