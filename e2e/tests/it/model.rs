//! Random commands of several customers to two replicas of the API, and to a simple model of it: in the end orders, lists,
//! history and events are the model's.

mod commands;
mod modelled;

use std::sync::atomic::{AtomicI64, Ordering};

use e2e::{Api, Broker, System};
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::order::OrderStatus;
use sqlx::PgPool;
use testbed::eventually;

use self::{
    commands::{ADMINISTRATOR, Change, Command, Condition, Line, commands},
    modelled::{Entry, Modelled, date, lines_body},
};

/// A request, to be sent once or again.
#[derive(Clone)]
struct Sent {
    who: usize,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    replayed: bool,
    text: String,
    json: Value,
}

/// The system that all sequences share.
struct World {
    replicas: [Api; 2],
    http: reqwest::Client,
    db: PgPool,
}

impl World {
    async fn log_in(&self, customer_id: i64, role: &str) -> String {
        let login = self.http.post(format!("{}/api/v1/auth/login-test", self.replicas[0].url));
        let login = login.json(&json!({"customer_id": customer_id, "role": role})).send().await.unwrap();
        let pair: Value = login.error_for_status().unwrap().json().await.unwrap();
        pair["accessToken"].as_str().unwrap().to_owned()
    }

    async fn events(&self, id: i64) -> Vec<Entry> {
        let rows: Vec<(String, i64, Value)> = sqlx::query_as(
            "SELECT event_type, version, payload::json FROM outbox WHERE order_id = $1 ORDER BY version",
        )
        .bind(id)
        .fetch_all(&self.db)
        .await
        .unwrap();
        rows.into_iter()
            .zip(1..)
            .map(|((kind, version, body), expected)| {
                assert_eq!(version, expected);
                let action = match kind.as_str() {
                    "OrderCreated" => "CREATED",
                    "OrderUpdated" => "UPDATED",
                    "OrderDeleted" => "DELETED",
                    other => panic!("{other}"),
                };
                let data = &body["data"];
                let performed_by = data["performed_by"].as_i64().unwrap();
                Entry { action, changes: data["changes"].clone(), performed_by }
            })
            .collect()
    }
}

struct Run<'a> {
    world: &'a World,
    tokens: Vec<String>,
    base: i64,
    orders: Vec<Modelled>,
    last: Option<(Sent, Answer)>,
    requests: usize,
    keys: usize,
}

impl Run<'_> {
    /// Sends a request to the replica whose turn it is.
    async fn send(&mut self, sent: &Sent) -> Answer {
        self.requests += 1;
        let url = &self.world.replicas[self.requests % 2].url;
        let request = self.world.http.request(sent.method.clone(), format!("{url}{}", sent.path));
        let mut request = request.bearer_auth(&self.tokens[sent.who]);
        for (name, value) in &sent.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &sent.body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let replayed = answer.headers().contains_key("idempotent-replayed");
        let text = answer.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, replayed, text, json }
    }

    async fn write(
        &mut self,
        who: usize,
        method: Method,
        path: String,
        condition: Option<String>,
        body: Option<Value>,
    ) -> Answer {
        self.keys += 1;
        let mut headers = vec![("idempotency-key", format!("key-{}", self.keys))];
        headers.extend(condition.map(|tag| ("if-match", tag)));
        let sent = Sent { who, method, path, headers, body };
        let answer = self.send(&sent).await;
        self.last = Some((sent, answer.clone()));
        answer
    }

    async fn get(&mut self, who: usize, path: String) -> Answer {
        self.send(&Sent { who, method: Method::GET, path, headers: Vec::new(), body: None }).await
    }

    fn customer(&self, who: usize) -> i64 {
        self.base + i64::try_from(who).unwrap()
    }

    fn sees(&self, who: usize, which: usize) -> bool {
        let own = |order: &Modelled| who == ADMINISTRATOR || order.owner == self.customer(who);
        self.orders.get(which).is_some_and(|order| !order.deleted && own(order))
    }

    fn address(&self, which: usize) -> String {
        format!("/api/v1/orders/{}", self.orders.get(which).map_or(i64::MAX, |order| order.id))
    }

    fn tag(&self, which: usize, condition: Condition) -> Option<String> {
        let version = self.orders.get(which).map_or(1, Modelled::version);
        match condition {
            Condition::None => None,
            Condition::Current => Some(format!("\"{version}\"")),
            Condition::Stale => Some(format!("\"{}\"", version + 1)),
        }
    }

    async fn step(&mut self, command: Command) {
        match command {
            Command::Place { who, day, lines } => self.place(who, day, lines).await,
            Command::Change { who, which, patch, change, condition } => {
                let method = if patch { Method::PATCH } else { Method::PUT };
                self.change(who, which, method, &change, condition).await;
            }
            Command::Delete { who, which, condition } => self.delete(who, which, condition).await,
            Command::Show { who, which } => {
                let shown = self.get(who, self.address(which)).await;
                assert_eq!(shown.status, if self.sees(who, which) { 200 } else { 404 }, "{}", shown.text);
                if shown.status == 200 {
                    assert_eq!(shown.json, self.orders[which].shown);
                }
            }
            Command::Again => {
                let Some((sent, answer)) = self.last.clone() else { return };
                let again = self.send(&sent).await;
                assert_eq!((again.status, &again.text), (answer.status, &answer.text));
                assert!(again.replayed, "{}", again.text);
            }
        }
    }

    async fn place(&mut self, who: usize, day: u8, lines: Vec<Line>) {
        let owner = self.customer(if who == ADMINISTRATOR { 0 } else { who });
        let body = json!({"customer_id": owner, "order_date": date(day), "lines": lines_body(&lines)});
        let placed = self.write(who, Method::POST, "/api/v1/orders".into(), None, Some(body)).await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        let mut order = Modelled {
            id: placed.json["id"].as_i64().unwrap(),
            owner,
            day,
            status: OrderStatus::Pending,
            lines,
            deleted: false,
            shown: Value::Null,
            entries: Vec::new(),
        };
        order.record("CREATED", placed.json, self.customer(who));
        self.orders.push(order);
    }

    async fn change(
        &mut self,
        who: usize,
        which: usize,
        method: Method,
        change: &Change,
        condition: Condition,
    ) {
        let mut body = json!({});
        if let Some(status) = change.status {
            body["status"] = json!(status);
        }
        if let Some(day) = change.day {
            body["order_date"] = json!(date(day));
        }
        if let Some(lines) = &change.lines {
            body["lines"] = lines_body(lines);
        }
        let tag = self.tag(which, condition);
        let answer = self.write(who, method, self.address(which), tag, Some(body)).await;
        let (expected, changes) = match condition {
            _ if !self.sees(who, which) => (404, false),
            Condition::Stale => (412, false),
            _ => self.orders[which].change(change),
        };
        assert_eq!(answer.status, expected, "{}", answer.text);
        let performed_by = self.customer(who);
        if changes {
            self.orders[which].record("UPDATED", answer.json, performed_by);
        } else if expected == 200 {
            assert_eq!(answer.json, self.orders[which].shown);
        }
    }

    async fn delete(&mut self, who: usize, which: usize, condition: Condition) {
        let tag = self.tag(which, condition);
        let answer = self.write(who, Method::DELETE, self.address(which), tag, None).await;
        let expected = match condition {
            _ if !self.sees(who, which) => 404,
            Condition::Stale => 412,
            _ => 204,
        };
        assert_eq!(answer.status, expected, "{}", answer.text);
        if expected == 204 {
            let performed_by = self.customer(who);
            self.orders[which].deleted = true;
            self.orders[which].record("DELETED", Value::Null, performed_by);
        }
    }

    async fn history_page(&self, path: &str, after_version: i64) -> Value {
        let (token, replica) = (&self.tokens[ADMINISTRATOR], &self.world.replicas[1].url);
        // Small pages, so that some histories take several.
        let page = format!("{replica}{path}?limit=3&after_version={after_version}");
        self.world.http.get(page).bearer_auth(token).send().await.unwrap().json().await.unwrap()
    }

    /// All entries, page by page.
    async fn history(&self, path: &str) -> Vec<Value> {
        let mut entries: Vec<Value> = Vec::new();
        loop {
            let last = entries.last().and_then(|entry| entry["version"].as_i64()).unwrap_or(0);
            let mut page = self.history_page(path, last).await;
            let Value::Array(next) = page["entries"].take() else { panic!("{page}") };
            entries.extend(next);
            if page["has_next"] == false {
                return entries;
            }
        }
    }

    /// In the end orders, lists, history and events are the model's.
    async fn compare(&mut self) {
        for who in 0..ADMINISTRATOR {
            let owner = self.customer(who);
            let list = self.get(who, "/api/v1/orders?size=100".into()).await;
            let standing = self.orders.iter().rev().filter(|order| !order.deleted && order.owner == owner);
            let expected: Vec<&Value> = standing.map(|order| &order.shown).collect();
            assert_eq!(list.json["total"], expected.len());
            assert_eq!(list.json["orders"], json!(expected));
        }
        for order in self.orders.clone() {
            assert_eq!(self.world.events(order.id).await, order.entries);
            let path = format!("/api/v1/orders/{}/history", order.id);
            eventually("the history is complete", async || {
                self.history_page(&path, 0).await["complete_through"] == order.version()
            })
            .await;
            let recorded: Vec<Value> = self
                .history(&path)
                .await
                .iter()
                .map(|entry| {
                    json!([entry["version"], entry["action"], entry["changes"], entry["performed_by"]])
                })
                .collect();
            let modelled: Vec<Value> = (1..)
                .zip(&order.entries)
                .map(|(version, entry)| json!([version, entry.action, entry.changes, entry.performed_by]))
                .collect();
            assert_eq!(recorded, modelled);
            for who in 0..ADMINISTRATOR {
                let status = self.get(who, path.clone()).await.status;
                assert_eq!(status, if order.owner == self.customer(who) { 200 } else { 404 });
            }
        }
    }
}

#[test]
fn any_sequence_of_commands_leaves_the_orders_history_and_events_that_the_model_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let system = runtime.block_on(System::new(Broker::RedisStreams));
    let (world, _worker) = runtime.block_on(async {
        let replicas = [system.api().await, system.api().await];
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        (World { replicas, http, db: system.database.connect().await }, system.worker().await)
    });
    let base = AtomicI64::new(1);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::with_cases(24)
    });
    let outcome = runner.run(&commands(), |commands| {
        // People of its own for each sequence, so that all share one system.
        let base = base.fetch_add(10, Ordering::Relaxed);
        runtime.block_on(async {
            let tokens = vec![
                world.log_in(base, "customer").await,
                world.log_in(base + 1, "customer").await,
                world.log_in(base + 2, "admin").await,
            ];
            let mut run =
                Run { world: &world, tokens, base, orders: Vec::new(), last: None, requests: 0, keys: 0 };
            for command in commands {
                run.step(command).await;
            }
            run.compare().await;
        });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
