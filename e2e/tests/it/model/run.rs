//! One sequence of commands, checked against the model at each step.

use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::order::OrderStatus;
use testbed::eventually;

use super::commands::{ADMINISTRATORS, Change, Command, Condition, Line, PEOPLE};
use super::modelled::{Modelled, date, lines_body, metadata, reference};
use super::world::{Answer, FIRST_SHOP, Login, Sent, World};

pub(crate) struct Run<'a> {
    world: &'a World,
    people: Vec<Login>,
    base: i64,
    orders: Vec<Modelled>,
    last: Option<(Sent, Answer)>,
    requests: usize,
    /// How many keys each person has used: the customers of both shops use the same ones.
    keys: [usize; PEOPLE.len()],
}

impl<'a> Run<'a> {
    /// A sequence of these people's, on a system that others may use, too.
    pub(crate) fn new(world: &'a World, base: i64, people: Vec<Login>) -> Self {
        Self { world, people, base, orders: Vec::new(), last: None, requests: 0, keys: [0; PEOPLE.len()] }
    }

    /// Sends a request to the replica whose turn it is.
    async fn send(&mut self, sent: &Sent) -> Answer {
        self.requests += 1;
        let replica = &self.world.replicas[self.requests % self.world.replicas.len()];
        let url = format!("{}{}", replica.url, sent.path);
        let request = || {
            let request = self.people[sent.who].sign(self.world.http.request(sent.method.clone(), &url));
            let named = |request: reqwest::RequestBuilder, (name, value): &(&str, String)| {
                request.header(*name, value)
            };
            let request = sent.headers.iter().fold(request, named);
            match &sent.body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        self.world.send(request).await
    }

    async fn write(
        &mut self,
        who: usize,
        method: Method,
        path: String,
        condition: Option<String>,
        body: Option<Value>,
    ) -> Answer {
        self.keys[who] += 1;
        let mut headers = vec![("idempotency-key", format!("key-{}", self.keys[who]))];
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
        self.base + PEOPLE[who].number
    }

    /// Who this person is in what is recorded.
    fn identity(&self, who: usize) -> (i64, Option<i64>) {
        (self.customer(who), PEOPLE[who].is_visitor().then_some(FIRST_SHOP))
    }

    /// Whether an order is, or was, this person's to see.
    fn may_see(&self, who: usize, order: &Modelled) -> bool {
        let person = &PEOPLE[who];
        person.shop == order.shop && (person.is_administrator() || order.owner == self.customer(who))
    }

    fn sees(&self, who: usize, which: usize) -> bool {
        self.orders.get(which).is_some_and(|order| !order.deleted && self.may_see(who, order))
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

    pub(crate) async fn step(&mut self, command: Command) {
        match command {
            Command::Place { who, day, lines, reference, metadata } => {
                self.place(who, day, lines, reference, metadata).await;
            }
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

    /// The order of this customer that has a reference.
    fn holder(&self, shop: usize, owner: i64, reference: Option<u8>) -> Option<&Modelled> {
        let wanted = (shop, owner, Some(reference?));
        let has_it =
            |order: &&Modelled| !order.deleted && (order.shop, order.owner, order.reference) == wanted;
        self.orders.iter().find(has_it)
    }

    async fn place(&mut self, who: usize, day: u8, lines: Vec<Line>, number: Option<u8>, entries: u8) {
        let shop = PEOPLE[who].shop;
        let owner = if PEOPLE[who].is_administrator() { self.base } else { self.customer(who) };
        let mut body = json!({"customer_id": owner, "order_date": date(day), "lines": lines_body(&lines)});
        body["reference"] = json!(number.map(reference));
        body["metadata"] = metadata(entries);
        let placed = self.write(who, Method::POST, "/api/v1/orders".into(), None, Some(body)).await;
        if let Some(holder) = self.holder(shop, owner, number) {
            assert_eq!(
                (placed.status, &placed.json["order_id"]),
                (409, &json!(holder.id)),
                "{}",
                placed.text
            );
            return;
        }
        assert_eq!(placed.status, 201, "{}", placed.text);
        let mut order = Modelled {
            id: placed.json["id"].as_i64().unwrap(),
            shop,
            owner,
            day,
            status: OrderStatus::Pending,
            lines,
            reference: number,
            metadata: entries,
            deleted: false,
            shown: Value::Null,
            entries: Vec::new(),
        };
        order.record("CREATED", placed.json, self.identity(who));
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
        if let Some(number) = change.reference {
            body["reference"] = json!(number.map(reference));
        }
        if let Some(entries) = change.metadata {
            body["metadata"] = metadata(entries);
        }
        let tag = self.tag(which, condition);
        let answer = self.write(who, method, self.address(which), tag, Some(body)).await;
        let (expected, changes) = match condition {
            _ if !self.sees(who, which) => (404, false),
            Condition::Stale => (412, false),
            _ => {
                let Modelled { shop, owner, .. } = self.orders[which];
                let holder = self.holder(shop, owner, change.reference.flatten()).map(|order| order.id);
                let is_taken = holder.is_some_and(|id| id != self.orders[which].id);
                self.orders[which].change(change, is_taken)
            }
        };
        assert_eq!(answer.status, expected, "{}", answer.text);
        let performed_by = self.identity(who);
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
            let performed_by = self.identity(who);
            self.orders[which].deleted = true;
            self.orders[which].record("DELETED", Value::Null, performed_by);
        }
    }

    async fn history_page(&self, shop: usize, path: &str, after_version: i64) -> Value {
        let (administrator, replica) = (&self.people[ADMINISTRATORS[shop]], &self.world.replicas[1].url);
        // Small pages, so that some histories take several.
        let page = format!("{replica}{path}?limit=3&after_version={after_version}");
        administrator.sign(self.world.http.get(page)).send().await.unwrap().json().await.unwrap()
    }

    /// All entries, page by page.
    async fn history(&self, shop: usize, path: &str) -> Vec<Value> {
        let mut entries: Vec<Value> = Vec::new();
        loop {
            let last = entries.last().and_then(|entry| entry["version"].as_i64()).unwrap_or(0);
            let mut page = self.history_page(shop, path, last).await;
            let Value::Array(next) = page["entries"].take() else { panic!("{page}") };
            entries.extend(next);
            if page["has_next"] == false {
                return entries;
            }
        }
    }

    /// Every order is shown by every replica as the model says.
    pub(crate) async fn check_reads(&mut self) {
        for which in 0..self.orders.len() {
            for _ in 0..self.world.replicas.len() {
                for who in ADMINISTRATORS {
                    self.step(Command::Show { who, which }).await;
                }
            }
        }
    }

    /// In the end orders, lists, history and events are the model's.
    pub(crate) async fn compare(&mut self) {
        let customers = || (0..PEOPLE.len()).filter(|who| !PEOPLE[*who].is_administrator());
        for who in customers() {
            let list = self.get(who, "/api/v1/orders?size=100".into()).await;
            let standing =
                self.orders.iter().rev().filter(|order| !order.deleted && self.may_see(who, order));
            let expected: Vec<&Value> = standing.map(|order| &order.shown).collect();
            assert_eq!(list.json["total"], expected.len());
            assert_eq!(list.json["orders"], json!(expected));
        }
        for order in self.orders.clone() {
            assert_eq!(self.world.events(order.shop, order.id).await, order.entries);
            let path = format!("/api/v1/orders/{}/history", order.id);
            eventually("the history is complete", async || {
                self.history_page(order.shop, &path, 0).await["complete_through"] == order.version()
            })
            .await;
            let recorded: Vec<Value> = self
                .history(order.shop, &path)
                .await
                .iter()
                .map(|entry| {
                    let performed_by = [&entry["performed_by"], &entry["performed_by_tenant"]];
                    json!([entry["version"], entry["action"], entry["changes"], performed_by])
                })
                .collect();
            let modelled: Vec<Value> = (1..)
                .zip(&order.entries)
                .map(|(version, entry)| json!([version, entry.action, entry.changes, entry.performed_by]))
                .collect();
            assert_eq!(recorded, modelled);
            for who in 0..PEOPLE.len() {
                let status = self.get(who, path.clone()).await.status;
                assert_eq!(status, if self.may_see(who, &order) { 200 } else { 404 });
            }
        }
    }
}
