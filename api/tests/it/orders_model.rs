//! Random commands of several customers against the live API and against a simple model of it.

use std::sync::atomic::{AtomicI64, Ordering};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::order::OrderStatus;

use crate::{
    orders_support::path,
    support::{Answer, Session, TestApp},
};

/// Product, quantity, price in cents.
type Line = (i64, i64, i64);

#[derive(Clone, Copy, Debug)]
enum Condition {
    None,
    Current,
    Stale,
}

#[derive(Clone, Debug)]
enum Command {
    Place {
        who: usize,
        day: u8,
        lines: Vec<Line>,
    },
    Change {
        who: usize,
        which: usize,
        patch: bool,
        change: Change,
        condition: Condition,
    },
    Delete {
        who: usize,
        which: usize,
        condition: Condition,
    },
    Show {
        who: usize,
        which: usize,
    },
    /// The last write once more, with its key.
    Again,
}

#[derive(Clone, Debug)]
struct Change {
    status: Option<OrderStatus>,
    day: Option<u8>,
    lines: Option<Vec<Line>>,
}

/// 0 and 1 are customers, 2 is an administrator.
const PEOPLE: usize = 3;

fn lines() -> impl Strategy<Value = Vec<Line>> {
    proptest::collection::vec((1..4_i64, 1..4_i64, 0..300_i64), 1..4)
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let condition = || prop_oneof![3 => Just(Condition::None), 2 => Just(Condition::Current), 1 => Just(Condition::Stale)];
    let status = proptest::option::of(proptest::sample::select(OrderStatus::ALL.to_vec()));
    let change = (status, proptest::option::of(1..4_u8), proptest::option::weighted(0.3, lines()))
        .prop_map(|(status, day, lines)| Change { status, day, lines });
    let command = prop_oneof![
        3 => (0..PEOPLE, 1..4_u8, lines()).prop_map(|(who, day, lines)| Command::Place { who, day, lines }),
        6 => (0..PEOPLE, 0..8_usize, any::<bool>(), change, condition()).prop_map(
            |(who, which, patch, change, condition)| Command::Change { who, which, patch, change, condition }
        ),
        1 => (0..PEOPLE, 0..8_usize, condition()).prop_map(|(who, which, condition)| Command::Delete { who, which, condition }),
        2 => (0..PEOPLE, 0..8_usize).prop_map(|(who, which)| Command::Show { who, which }),
        2 => Just(Command::Again),
    ];
    proptest::collection::vec(command, 10..60)
}

/// What the model knows of an order.
#[derive(Clone, Debug)]
struct Modelled {
    id: i64,
    owner: usize,
    day: u8,
    status: OrderStatus,
    lines: Vec<Line>,
    version: i64,
    deleted: bool,
    events: Vec<String>,
}

impl Modelled {
    fn changed(&mut self, kind: &str) {
        self.version += 1;
        self.events.push(format!("{kind} {}", self.version));
    }

    /// The status of the answer; the model has changed where it is a success that changes something.
    fn change(&mut self, change: &Change) -> u16 {
        let status = change.status.unwrap_or(self.status);
        if status != self.status && !self.status.may_become(status) {
            return 409;
        }
        let day = change.day.unwrap_or(self.day);
        let lines = change.lines.as_ref().unwrap_or(&self.lines).clone();
        let edited = (day, &lines) != (self.day, &self.lines);
        if edited && self.status != OrderStatus::Pending {
            return 409;
        }
        if edited || status != self.status {
            (self.day, self.status, self.lines) = (day, status, lines);
            self.changed("OrderUpdated");
        }
        200
    }

    fn check(&self, shown: &Value, base: i64) {
        assert_eq!(shown["id"], self.id);
        assert_eq!(shown["customer_id"], base + i64::try_from(self.owner).unwrap());
        assert_eq!(shown["version"], self.version);
        assert_eq!(shown["status"], self.status.as_str());
        assert_eq!(shown["order_date"], date(self.day));
        let lines: Vec<Value> = self.lines.iter().map(line_shown).collect();
        let shown_lines: Vec<Value> = shown["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| json!([line["product_id"], line["quantity"], line["unit_price"]]))
            .collect();
        assert_eq!(shown_lines, lines);
        let cents: i64 = self.lines.iter().map(|(_, quantity, price)| quantity * price).sum();
        assert_eq!(shown["total_amount"], amount(cents));
    }
}

fn amount(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn line_shown((product, quantity, price): &Line) -> Value {
    json!([product, quantity, amount(*price)])
}

fn date(day: u8) -> String {
    format!("2025-01-{day:02}")
}

fn lines_body(lines: &[Line]) -> Value {
    let line = |(product, quantity, price): &Line| json!({"product_id": product, "quantity": quantity, "unit_price": amount(*price)});
    lines.iter().map(line).collect()
}

/// A write as it was sent, to be sent again.
struct Sent {
    who: usize,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
    answer: Answer,
}

struct Run<'a> {
    app: &'a TestApp,
    people: Vec<Session>,
    base: i64,
    orders: Vec<Modelled>,
    last: Option<Sent>,
    keys: usize,
}

impl Run<'_> {
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
        let answer = self.send(who, &method, &path, &headers, body.as_ref()).await;
        let again = Answer {
            status: answer.status,
            headers: answer.headers.clone(),
            bytes: answer.bytes.clone(),
            json: answer.json.clone(),
        };
        self.last = Some(Sent { who, method, path, headers, body, answer: again });
        answer
    }

    async fn send(
        &self,
        who: usize,
        method: &Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Answer {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.people[who].send(method.clone(), path, &headers, body).await
    }

    fn sees(&self, who: usize, which: usize) -> bool {
        self.orders.get(which).is_some_and(|order| !order.deleted && (who == 2 || order.owner == who))
    }

    fn address(&self, which: usize) -> String {
        path(self.orders.get(which).map_or(i64::MAX, |order| order.id))
    }

    fn tag(&self, which: usize, condition: Condition) -> Option<String> {
        let version = self.orders.get(which).map_or(1, |order| order.version);
        match condition {
            Condition::None => None,
            Condition::Current => Some(format!("\"{version}\"")),
            Condition::Stale => Some(format!("\"{}\"", version + 1)),
        }
    }

    async fn step(&mut self, command: Command) {
        match command {
            Command::Place { who, day, lines } => {
                let owner = if who == 2 { 0 } else { who };
                let customer = self.base + i64::try_from(owner).unwrap();
                let body =
                    json!({"customer_id": customer, "order_date": date(day), "lines": lines_body(&lines)});
                let placed = self.write(who, Method::POST, "/api/v1/orders".into(), None, Some(body)).await;
                let placed = placed.expect(StatusCode::CREATED);
                let order = Modelled {
                    id: placed.json["id"].as_i64().unwrap(),
                    owner,
                    day,
                    status: OrderStatus::Pending,
                    lines,
                    version: 1,
                    deleted: false,
                    events: vec!["OrderCreated 1".into()],
                };
                order.check(&placed.json, self.base);
                self.orders.push(order);
            }
            Command::Change { who, which, patch, change, condition } => {
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
                let method = if patch { Method::PATCH } else { Method::PUT };
                let tag = self.tag(which, condition);
                let answer = self.write(who, method, self.address(which), tag, Some(body)).await;
                let expected = match condition {
                    _ if !self.sees(who, which) => 404,
                    Condition::Stale => 412,
                    _ => self.orders[which].change(&change),
                };
                assert_eq!(answer.status.as_u16(), expected, "{}", answer.json);
                if expected == 200 {
                    self.orders[which].check(&answer.json, self.base);
                }
            }
            Command::Delete { who, which, condition } => {
                let tag = self.tag(which, condition);
                let answer = self.write(who, Method::DELETE, self.address(which), tag, None).await;
                let expected = match condition {
                    _ if !self.sees(who, which) => 404,
                    Condition::Stale => 412,
                    _ => {
                        self.orders[which].changed("OrderDeleted");
                        self.orders[which].deleted = true;
                        204
                    }
                };
                assert_eq!(answer.status.as_u16(), expected);
            }
            Command::Show { who, which } => {
                let shown = self.people[who].get(&self.address(which)).await;
                if self.sees(who, which) {
                    self.orders[which].check(&shown.expect(StatusCode::OK).json, self.base);
                } else {
                    shown.expect(StatusCode::NOT_FOUND);
                }
            }
            Command::Again => {
                let Some(sent) = &self.last else { return };
                let again =
                    self.send(sent.who, &sent.method, &sent.path, &sent.headers, sent.body.as_ref()).await;
                assert_eq!((again.status, &again.bytes), (sent.answer.status, &sent.answer.bytes));
                assert_eq!(again.header("idempotent-replayed"), Some("true"));
            }
        }
    }

    /// In the end orders, events and lists are the model's.
    async fn compare(&self) {
        for (who, session) in self.people.iter().enumerate().take(2) {
            let mut expected: Vec<&Modelled> =
                self.orders.iter().filter(|order| !order.deleted && order.owner == who).collect();
            expected.reverse();
            let list = session.get("/api/v1/orders?size=100").await.expect(StatusCode::OK);
            assert_eq!(list.json["total"], expected.len());
            for (shown, order) in list.json["orders"].as_array().unwrap().iter().zip(&expected) {
                order.check(shown, self.base);
            }
        }
        for order in &self.orders {
            assert_eq!(self.app.events(order.id).await, order.events);
        }
    }
}

#[test]
fn any_sequence_of_commands_leaves_what_the_model_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let app = runtime.block_on(TestApp::start());
    let base = AtomicI64::new(1);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::with_cases(24)
    });
    let outcome = runner.run(&commands(), |commands| {
        // People of its own for each sequence, so that all share one database.
        let base = base.fetch_add(10, Ordering::Relaxed);
        runtime.block_on(async {
            let people =
                vec![app.login(base).await, app.login(base + 1).await, app.login_admin(base + 2).await];
            let mut run = Run { app: &app, people, base, orders: Vec::new(), last: None, keys: 0 };
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
    runtime.block_on(app.drain());
}
