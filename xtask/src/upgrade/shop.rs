//! A customer who places orders, and compares each answer with what was answered before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};
use testbed::http::{Client, Response};

use super::balancer::Balancer;
use super::faults::Faults;

/// An attempt without an answer is given up: the API answers within 10 s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// A request that is not answered by then is a fault: no step of an upgrade takes as long.
const REPEAT_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// One customer with a session.
#[derive(Debug)]
pub(super) struct Shop {
    customer: u16,
    balancer: Arc<Balancer>,
    faults: Arc<Faults>,
    /// Kept open, by address.
    connections: HashMap<String, Client>,
    token: String,
    refresh_token: String,
    /// Every order that was placed, as it was answered last.
    pub(super) orders: Vec<Placed>,
    /// Requests with a key so far.
    keys: u32,
}

/// An order as its last answer says it is.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) id: i64,
    pub(super) version: i64,
    /// `None` if it was deleted.
    pub(super) body: Option<Map<String, Value>>,
    /// The request that placed it.
    creation: Keyed,
}

/// A request that can be repeated.
#[derive(Clone, Debug)]
struct Keyed {
    method: &'static str,
    path: String,
    body: Option<Value>,
    key: String,
}

impl Shop {
    pub(super) fn new(customer: u16, balancer: Arc<Balancer>, faults: Arc<Faults>) -> Self {
        Self {
            customer,
            balancer,
            faults,
            connections: HashMap::new(),
            token: String::new(),
            refresh_token: String::new(),
            orders: Vec::new(),
            keys: 0,
        }
    }

    /// Starts the session.
    pub(super) async fn log_in(&mut self) -> anyhow::Result<()> {
        let body = json!({"customer_id": self.customer});
        let response = self.request("POST", "/api/v1/auth/login-test", Some(&body), None).await?;
        self.take_tokens(&response)
    }

    /// Goes on with the session, on whatever replica is next.
    pub(super) async fn refresh_session(&mut self) -> anyhow::Result<()> {
        let body = json!({"refresh_token": self.refresh_token});
        let response = self.request("POST", "/api/v1/auth/refresh", Some(&body), None).await?;
        self.take_tokens(&response)
    }

    /// Places an order, changes it in several steps, and reads it after each.
    pub(super) async fn complete_order(&mut self, seed: usize) -> anyhow::Result<()> {
        let product = 1000 + seed % 50;
        let lines = json!([
            {"product_id": product, "quantity": 1 + seed % 7, "unit_price": "25.50"},
            {"product_id": product + 1, "quantity": 1, "unit_price": 15.00},
        ]);
        let body = json!({"order_date": "2025-01-20", "lines": lines});
        self.place_order(body).await?;
        self.read_order(self.orders.len() - 1).await?;
        let fewer = json!({"lines": [{"product_id": product, "quantity": 2, "unit_price": "0.99"}]});
        self.change_order(fewer).await?;
        let statuses: &[&str] = match seed % 4 {
            0 => &["CANCELLED"],
            1 => &["CONFIRMED"],
            _ => &["CONFIRMED", "SHIPPED", "DELIVERED"],
        };
        for status in statuses {
            self.change_order(json!({"status": status})).await?;
        }
        if seed.is_multiple_of(4) {
            self.delete_order().await?;
        }
        // One from before, which other versions may have written.
        self.read_order(seed * 7 % self.orders.len()).await?;
        self.list_orders().await
    }

    /// Reads an order: it must be as its last answer was. The one exception of the contract is a write whose replica could not
    /// reach Redis: then the order is read again until it is right.
    pub(super) async fn read_order(&mut self, index: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            match self.compare_order(index).await {
                Err(_) if start.elapsed() < REPEAT_TIMEOUT && self.balancer.has_missed_redis().await => {
                    self.faults
                        .count_retry("GET: an old answer, after Redis did not answer in time".to_owned());
                    tokio::time::sleep(PAUSE).await;
                }
                compared => return compared,
            }
        }
    }

    async fn compare_order(&mut self, index: usize) -> anyhow::Result<()> {
        let Placed { id, version, body, .. } = self.orders[index].clone();
        let response = self.request("GET", &format!("/api/v1/orders/{id}"), None, None).await?;
        let Some(expected) = body else {
            ensure!(response.status == 404, "order {id} was deleted, and is read: {}", response.body);
            return Ok(());
        };
        ensure!(response.status == 200, "order {id} reads {}: {}", response.status, response.body);
        let seen = parse_object(&response)?;
        ensure!(
            seen["version"] == version,
            "order {id} was answered in version {version}, then read: {}",
            response.body
        );
        compare_fields(&expected, &seen).with_context(|| format!("order {id}"))
    }

    /// Reads the history of an order: it must end with the last version.
    pub(super) async fn read_history(&mut self, index: usize) -> anyhow::Result<()> {
        let Placed { id, version, body, .. } = self.orders[index].clone();
        let response = self.request("GET", &format!("/api/v1/orders/{id}/history"), None, None).await?;
        ensure!(response.status == 200, "the history of order {id}: {} {}", response.status, response.body);
        let history = parse_object(&response)?;
        let entries = history["entries"].as_array().context("no entries")?;
        let versions: Vec<i64> = entries.iter().filter_map(|entry| entry["version"].as_i64()).collect();
        ensure!(
            versions == (1..=version).collect::<Vec<_>>() && history["complete_through"] == version,
            "order {id} has {version} versions, and its history is {}",
            response.body
        );
        let last = entries.last().map(|entry| entry["action"].clone());
        ensure!(
            (last == Some("DELETED".into())) == body.is_none(),
            "order {id}: its history is {}",
            response.body
        );
        Ok(())
    }

    /// Repeats the request that placed an order: it must not place another one.
    pub(super) async fn repeat_creation(&mut self, index: usize) -> anyhow::Result<()> {
        let Placed { id, creation, .. } = self.orders[index].clone();
        let response = self.send_keyed(&creation).await?;
        let same = response.status == 201 && parse_object(&response)?["id"] == id;
        ensure!(same, "the key of order {id} answers {}: {}", response.status, response.body);
        Ok(())
    }

    async fn place_order(&mut self, body: Value) -> anyhow::Result<()> {
        let creation = self.keyed("POST", "/api/v1/orders".to_owned(), Some(body));
        let response = self.write(&creation, 201).await?;
        let body = parse_object(&response)?;
        let id = body["id"].as_i64().context("no id")?;
        ensure!(body["version"] == 1, "a new order is {}", response.body);
        self.orders.push(Placed { id, version: 1, body: Some(body), creation });
        Ok(())
    }

    /// Changes the newest order, and reads it.
    async fn change_order(&mut self, change: Value) -> anyhow::Result<()> {
        let (index, path) = self.newest()?;
        let request = self.keyed("PATCH", path, Some(change));
        let response = self.write(&request, 200).await?;
        let body = parse_object(&response)?;
        let order = &mut self.orders[index];
        let expected = order.version + 1;
        ensure!(
            body["version"] == expected,
            "version {expected} is due, and the answer is {}",
            response.body
        );
        (order.version, order.body) = (expected, Some(body));
        self.read_order(index).await
    }

    /// Deletes the newest order, and reads it.
    async fn delete_order(&mut self) -> anyhow::Result<()> {
        let (index, path) = self.newest()?;
        let request = self.keyed("DELETE", path, None);
        self.write(&request, 204).await?;
        let order = &mut self.orders[index];
        (order.version, order.body) = (order.version + 1, None);
        self.read_order(index).await
    }

    /// Two pages, the second by a cursor that another replica may have made.
    async fn list_orders(&mut self) -> anyhow::Result<()> {
        let mut listed = Vec::new();
        let mut path = "/api/v1/orders?size=3".to_owned();
        for _ in 0..2 {
            let response = self.request("GET", &path, None, None).await?;
            ensure!(response.status == 200, "{path} answers {}: {}", response.status, response.body);
            let page = parse_object(&response)?;
            let orders = page["orders"].as_array().context("no orders")?;
            listed.extend(orders.iter().filter_map(|order| order["id"].as_i64()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/api/v1/orders?size=3&cursor={cursor}");
        }
        let left = self.orders.iter().rev().filter(|order| order.body.is_some());
        let expected: Vec<i64> = left.map(|order| order.id).take(listed.len().max(1)).collect();
        ensure!(
            listed == expected || expected.is_empty(),
            "the newest orders are {expected:?}, listed are {listed:?}"
        );
        Ok(())
    }

    /// A write, and now and then the same once more, most likely at another replica: the answer must be the same.
    async fn write(&mut self, request: &Keyed, expected: u16) -> anyhow::Result<Response> {
        let response = self.send_keyed(request).await?;
        ensure!(
            response.status == expected,
            "{} {} answers {}: {}",
            request.method,
            request.path,
            response.status,
            response.body
        );
        if self.keys.is_multiple_of(3) {
            let again = self.send_keyed(request).await?;
            ensure!(
                (again.status, &again.body) == (response.status, &response.body),
                "{} {} was answered {}, then, by the same key, {}: {}",
                request.method,
                request.path,
                response.body,
                again.status,
                again.body
            );
        }
        Ok(response)
    }

    fn keyed(&mut self, method: &'static str, path: String, body: Option<Value>) -> Keyed {
        self.keys += 1;
        Keyed { method, path, body, key: format!("request-{}", self.keys) }
    }

    fn newest(&self) -> anyhow::Result<(usize, String)> {
        let order = self.orders.last().context("no order")?;
        Ok((self.orders.len() - 1, format!("/api/v1/orders/{}", order.id)))
    }

    async fn send_keyed(&mut self, request: &Keyed) -> anyhow::Result<Response> {
        self.request(request.method, &request.path, request.body.as_ref(), Some(&request.key)).await
    }

    /// A request that is repeated, at the next replica, until the answer is not about an outage.
    async fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<Response> {
        let start = Instant::now();
        loop {
            let seen = match self.request_once(method, path, body, key).await {
                Ok(response)
                    if response.status < 500 && !response.body.contains("idempotency_in_progress") =>
                {
                    self.faults.count_request(start.elapsed());
                    return Ok(response);
                }
                Ok(response) => format!("{} {}", response.status, problem_code(&response)),
                Err(error) => error.root_cause().to_string(),
            };
            if start.elapsed() > REPEAT_TIMEOUT {
                bail!("{method} {path} was not answered within {REPEAT_TIMEOUT:?}: {seen}");
            }
            self.faults.count_retry(format!("{method}: {seen}"));
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn request_once(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<Response> {
        let url = self.balancer.next_url();
        let body = body.map(Value::to_string);
        let authorization = format!("Bearer {}", self.token);
        let mut headers = vec![("Authorization", authorization.as_str())];
        headers.extend(key.map(|key| ("Idempotency-Key", key)));
        let exchange = async {
            // Taken out: what fails is not used again.
            let mut client = match self.connections.remove(&url) {
                Some(client) => client,
                None => Client::connect(&url).await?,
            };
            let response = client.send(method, path, &headers, body.as_deref()).await?;
            anyhow::Ok((client, response))
        };
        let (client, response) =
            tokio::time::timeout(ATTEMPT_TIMEOUT, exchange).await.context("no answer")??;
        let closes = response.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
        });
        if !closes {
            self.connections.insert(url, client);
        }
        Ok(response)
    }

    fn take_tokens(&mut self, response: &Response) -> anyhow::Result<()> {
        ensure!(response.status == 200, "the session answers {}: {}", response.status, response.body);
        let pair = parse_object(response)?;
        let token = |name: &str| pair[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        (self.token, self.refresh_token) = (token("accessToken")?, token("refreshToken")?);
        Ok(())
    }
}

fn parse_object(response: &Response) -> anyhow::Result<Map<String, Value>> {
    serde_json::from_str(&response.body).with_context(|| format!("not an object: {}", response.body))
}

fn problem_code(response: &Response) -> String {
    let problem = parse_object(response).unwrap_or_default();
    problem.get("code").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The fields that both versions know must be the same.
fn compare_fields(expected: &Map<String, Value>, seen: &Map<String, Value>) -> anyhow::Result<()> {
    for (name, value) in expected {
        let read = seen.get(name).unwrap_or(value);
        ensure!(read == value, "{name} was answered as {value}, then read as {read}");
    }
    Ok(())
}
