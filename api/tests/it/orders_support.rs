//! What the tests of orders have in common.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use testbed::eventually;

use crate::support::{Answer, Session, TestApp, answer};

/// The two lines of the original system's example: 66.00 together.
pub(crate) fn two_lines() -> Value {
    json!([
        {"product_id": 1001, "quantity": 2, "unit_price": 25.50},
        {"product_id": 1002, "quantity": 1, "unit_price": 15.00},
    ])
}

/// A valid order.
pub(crate) fn order() -> Value {
    json!({"order_date": "2025-01-20", "lines": two_lines()})
}

/// The path of an order.
pub(crate) fn path(id: i64) -> String {
    format!("/api/v1/orders/{id}")
}

impl Session {
    /// Places an order and gives its id.
    pub(crate) async fn place(&self, body: &Value) -> i64 {
        let created = self.post("/api/v1/orders", body).await.expect(StatusCode::CREATED);
        created.json["id"].as_i64().expect("an id")
    }

    /// `POST` under a key, again as long as another request under it is running: on a busy machine that may take longer than
    /// others wait for it.
    pub(crate) async fn post_with_key(&self, path: &str, key: &str, body: &Value) -> Answer {
        eventually("the first request under the key ends", async || {
            let begun = Instant::now();
            let answer = self.send(Method::POST, path, &[("idempotency-key", key)], Some(body)).await;
            if answer.json["code"] != "idempotency_in_progress" {
                return Some(answer);
            }
            assert!(begun.elapsed() > Duration::from_secs(1), "it has not waited for the first one");
            None
        })
        .await
    }

    /// A request with further headers and a body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }
}

/// An answer without PostgreSQL. On a busy machine the cache may be late, which is then told as 503: asked again.
pub(crate) async fn without_database(ask: impl AsyncFn() -> Answer) -> Answer {
    eventually("the cache answers", async || {
        let answer = ask().await;
        (answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await
}

impl TestApp {
    /// Takes PostgreSQL away from the API, for reads, once every write has reached the cache.
    pub(crate) async fn close_database(&self) {
        eventually("every write has reached the cache", async || !self.app.state.orders.cache_degraded())
            .await;
        self.app.state.db.close();
    }

    /// A number from the database.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db).await.expect("a number")
    }

    /// Locks an order's row until the transaction ends.
    pub(crate) async fn lock_order(&self, id: i64) -> Transaction<'static, Postgres> {
        let mut transaction = self.db.begin().await.expect("a transaction");
        sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE NOWAIT")
            .bind(id)
            .execute(&mut *transaction)
            .await
            .expect("nobody else holds the lock");
        transaction
    }

    /// Takes an order out of the cache, so that the next read asks the database.
    pub(crate) async fn forget_cached(&self, id: i64) {
        let mut redis = self.redis_connection().await;
        let key = format!("{}{id}", shared::cache::KEY_PREFIX);
        let _removed: i64 = redis::cmd("DEL").arg(key).query_async(&mut redis).await.expect("Redis answers");
    }

    /// Reads an order, and waits for the entry that its first reader brings to the cache after it was answered.
    pub(crate) async fn read_into_cache(&self, session: &Session, id: i64) -> Answer {
        let mut redis = self.redis_connection().await;
        let key = format!("{}{id}", shared::cache::KEY_PREFIX);
        // On a busy machine what a reader brings may be given up after 50 ms; the next one brings it.
        eventually("it is cached", async || {
            let read = session.get(&path(id)).await.expect(StatusCode::OK);
            let exists = redis::cmd("EXISTS").arg(&key).query_async::<bool>(&mut redis).await;
            (exists == Ok(true)).then_some(read)
        })
        .await
    }

    /// A connection to the test's own Redis.
    pub(crate) async fn redis_connection(&self) -> redis::aio::MultiplexedConnection {
        testbed::connect_redis(self.redis.url()).await.expect("Redis answers")
    }

    /// The events of an order as `type version`, in the order of the log.
    pub(crate) async fn events(&self, id: i64) -> Vec<String> {
        sqlx::query_scalar("SELECT event_type || ' ' || version FROM outbox WHERE order_id = $1 ORDER BY id")
            .bind(id)
            .fetch_all(&self.db)
            .await
            .expect("events")
    }
}
