//! Every field of an order is known wherever orders are: answers, list, event, history, cache, and `worker verify`.
//!
//! The names of the fields come from the schema `Order` of the OpenAPI document, so a field that is new fails here until this
//! test knows how it changes, also if responses leave it out while it has no value.

use std::sync::atomic::{AtomicU32, Ordering};

use e2e::{Broker, Client, System};
use redis::AsyncCommands as _;
use reqwest::Method;
use serde_json::{Value, json};
use shared::cache::KEY_PREFIX;
use sqlx::PgPool;

/// Fields that events and history have beside the changes, not among them.
const NOT_LISTED: [&str; 4] = ["id", "version", "created_at", "updated_at"];

/// A customer gives each reference once.
static NEXT_REFERENCE: AtomicU32 = AtomicU32::new(1);

/// The body with which a client changes a field; `None` if no client can.
fn change_request(field: &str) -> Option<Value> {
    match field {
        "status" | "version" | "updated_at" => Some(json!({"status": "CONFIRMED"})),
        "order_date" => Some(json!({"order_date": "2025-02-21"})),
        "lines" | "total_amount" => {
            Some(json!({"lines": [{"product_id": 7, "quantity": 3, "unit_price": "9.99"}]}))
        }
        "reference" => Some(json!({"reference": "another one"})),
        "metadata" => Some(json!({"metadata": {"a longer key": "1", "b": "\"2\""}})),
        "id" | "customer_id" | "created_at" => None,
        _ => panic!("add the request that changes the new field {field}"),
    }
}

/// The statement that damages the stored field of order `$1`; `None` if the field is what identifies the order.
fn damage(field: &str) -> Option<&'static str> {
    Some(match field {
        "id" => return None,
        "customer_id" => "UPDATE orders SET customer_id = customer_id + 1 WHERE id = $1",
        "order_date" => "UPDATE orders SET order_date = order_date + 1 WHERE id = $1",
        "status" => "UPDATE orders SET status = 'CANCELLED' WHERE id = $1",
        "total_amount" => "UPDATE orders SET total_amount = total_amount + 0.01 WHERE id = $1",
        "version" => "UPDATE orders SET version = version + 1 WHERE id = $1",
        "created_at" => "UPDATE orders SET created_at = created_at - interval '1 microsecond' WHERE id = $1",
        "updated_at" => "UPDATE orders SET updated_at = updated_at + interval '1 microsecond' WHERE id = $1",
        "reference" => "UPDATE orders SET reference = reference || '!' WHERE id = $1",
        "metadata" => "UPDATE orders SET metadata = '{\"color\":\"blue\"}' WHERE id = $1",
        "lines" => "DELETE FROM order_lines WHERE order_id = $1 AND position = 1",
        "lines.id" => "UPDATE order_lines SET id = id + 1000000 WHERE order_id = $1 AND position = 0",
        "lines.product_id" => {
            "UPDATE order_lines SET product_id = product_id + 1 WHERE order_id = $1 AND position = 0"
        }
        "lines.quantity" => {
            "UPDATE order_lines SET quantity = quantity + 1 WHERE order_id = $1 AND position = 0"
        }
        "lines.unit_price" => {
            "UPDATE order_lines SET unit_price = unit_price + 0.01 WHERE order_id = $1 AND position = 0"
        }
        _ => panic!("add the statement that damages the new field {field}"),
    })
}

/// The names of the fields of one of these schemas of the OpenAPI document.
fn field_names(schemas: &Value, schema: &str) -> Vec<String> {
    schemas[schema]["properties"].as_object().expect("a schema with fields").keys().cloned().collect()
}

struct Shop {
    system: System,
    client: Client,
    db: PgPool,
}

impl Shop {
    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.client.request_once(method, path, body, None).await.expect("an answer");
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    /// An order in which every field has a value.
    async fn create(&self) -> Value {
        let mut body = Client::order(1);
        body["reference"] = json!(format!("PO-{}", NEXT_REFERENCE.fetch_add(1, Ordering::Relaxed)));
        body["metadata"] = json!({"color": "red"});
        self.request(Method::POST, "/api/v1/orders", Some(&body)).await
    }

    async fn get(&self, path: &str) -> Value {
        self.request(Method::GET, path, None).await
    }

    /// The schemas of the OpenAPI document by name.
    async fn schemas(&self) -> Value {
        self.get("/openapi.json").await["components"]["schemas"].take()
    }

    /// The order's cached body.
    async fn cached(&self, id: &Value) -> Option<Value> {
        let mut redis = self.system.redis.connect().await;
        let entry: Option<String> = redis.get(format!("{KEY_PREFIX}{id}")).await.expect("the entry is read");
        // Version and owner stand in front.
        serde_json::from_str(entry?.get(40..)?).ok()
    }

    async fn event(&self, id: &Value, version: i64) -> Value {
        let payload: String =
            sqlx::query_scalar("SELECT payload FROM outbox WHERE order_id = $1 AND version = $2")
                .bind(id.as_i64())
                .bind(version)
                .fetch_one(&self.db)
                .await
                .expect("the event is in the log");
        serde_json::from_str(&payload).expect("JSON")
    }

    /// The recorded changes of a version.
    async fn recorded(&self, id: &Value, version: i64) -> Value {
        testbed::eventually("the version is recorded", async || {
            let history = self.get(&format!("/api/v1/orders/{id}/history")).await;
            let entries = history["entries"].as_array().expect("entries").clone();
            entries.into_iter().find(|entry| entry["version"] == version)
        })
        .await["changes"]
            .take()
    }
}

async fn open_shop() -> (Shop, testbed::Program, testbed::Program) {
    let system = System::new(Broker::RedisStreams).await;
    let api = system.api().await;
    let worker = system.worker().await;
    let client = Client::login(&api.url, 123).await.expect("logs in");
    let db = system.database.connect().await;
    (Shop { system, client, db }, api.program, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_that_changes_is_in_answer_list_event_history_and_cache() {
    let (shop, _api, _worker) = open_shop().await;
    let fields = field_names(&shop.schemas().await, "Order");
    for field in &fields {
        let before = shop.create().await;
        let id = &before["id"];
        let path = format!("/api/v1/orders/{id}");
        let is_listed = !NOT_LISTED.contains(&field.as_str());
        if is_listed {
            let expected = json!({"from": null, "to": before[field]});
            assert_eq!(shop.event(id, 1).await["data"]["changes"][field], expected, "{field} in the event");
            assert_eq!(shop.recorded(id, 1).await[field], expected, "{field} in the history");
        }
        let Some(body) = change_request(field) else { continue };
        let after = shop.request(Method::PATCH, &path, Some(&body)).await;
        assert_ne!(after[field], before[field], "{field} has changed");
        assert_eq!(shop.get(&path).await, after, "{field} in the answer");

        let list = shop.get("/api/v1/orders?size=100").await;
        let listed = list["orders"].as_array().expect("orders").iter().find(|order| order["id"] == *id);
        assert_eq!(listed, Some(&after), "{field} in the list");

        let event = shop.event(id, 2).await;
        assert_eq!(event["data"]["order"], after, "{field} in the event's order");
        let expected =
            if is_listed { json!({"from": before[field], "to": after[field]}) } else { Value::Null };
        assert_eq!(event["data"]["changes"][field], expected, "{field} in the event's changes");
        assert_eq!(shop.recorded(id, 2).await[field], expected, "{field} in the history");

        let cached = testbed::eventually("the change is cached", async || {
            shop.cached(id).await.filter(|cached| cached["version"] == 2)
        });
        assert_eq!(cached.await, after, "{field} in the cache");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_verify_notices_damage_to_each_field() {
    let (shop, _api, _worker) = open_shop().await;
    let schemas = shop.schemas().await;
    let line_fields = field_names(&schemas, "OrderLine").into_iter().map(|name| format!("lines.{name}"));
    let mut damaged = Vec::new();
    for field in field_names(&schemas, "Order").into_iter().chain(line_fields) {
        let Some(statement) = damage(&field) else { continue };
        let order = shop.create().await;
        shop.recorded(&order["id"], 1).await;
        shop.get(&format!("/api/v1/orders/{}", order["id"])).await;
        testbed::eventually("the order is cached", async || shop.cached(&order["id"]).await.is_some()).await;
        damaged.push((field, order["id"].clone(), statement));
    }
    let verify = || shop.system.worker_command().arg("verify").spawn().wait();
    let (status, said) = verify().await;
    assert!(status.success(), "{said}");

    for (field, id, statement) in &damaged {
        let done = sqlx::query(*statement).bind(id.as_i64()).execute(&shop.db).await;
        assert_eq!(done.expect("the damage is done").rows_affected(), 1, "{field}");
    }
    let (status, said) = verify().await;
    assert!(!status.success(), "{said}");
    for (field, id, _) in &damaged {
        let of_order = |line: &&str| {
            let rest = line.strip_prefix(&format!("difference: order {id}"));
            rest.is_some_and(|rest| rest.starts_with([' ', ':']))
        };
        let differences: Vec<&str> = said.lines().filter(of_order).collect();
        let of_cache = |line: &&&str| line.contains("the cache holds");
        assert_eq!(differences.iter().filter(of_cache).count(), 1, "{field} in the cache: {differences:?}");
        assert!(differences.len() > 1, "{field} in the event: {differences:?}");
    }
}
