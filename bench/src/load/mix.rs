//! A realistic mix: half reads, a fifth creates, and the rest updates, lists and deletes, by many customers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use rand::Rng as _;
use serde::Deserialize;
use uuid::Uuid;

use super::connection::{Answer, Ask};
use super::generator::Work;

/// Out of a hundred requests; what is left are deletions.
const READS: u32 = 50;
const CREATES: u32 = 20;
const UPDATES: u32 = 17;
const LISTS: u32 = 10;

/// The mix, with what it knows of the orders that it made.
#[derive(Debug)]
pub(crate) struct Mix {
    /// `Authorization` headers of the customers.
    customers: Vec<String>,
    orders: Mutex<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    /// Those that no request is changing at the moment.
    live: Vec<Live>,
    /// The last version of each order that was answered.
    answered: HashMap<i64, i64>,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    id: i64,
    customer: usize,
    version: i64,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Nothing that changes anything.
    Look,
    /// A new order of this customer.
    Create(usize),
    /// The next status of this order.
    Update(Held),
    /// The end of this order.
    Delete(Held),
}

/// An order that no other request changes until the response is there.
#[derive(Debug)]
pub(crate) struct Held(Live);

#[derive(Deserialize)]
struct Written {
    id: i64,
    version: i64,
}

impl Mix {
    /// By customers with these tokens.
    pub(crate) fn new(tokens: &[String]) -> Self {
        let customers = tokens.iter().map(|token| format!("Bearer {token}")).collect();
        Self { customers, orders: Mutex::default() }
    }

    /// The last version of each order that was answered, as a promise of the system.
    pub(crate) fn promised(&self) -> HashMap<i64, i64> {
        self.lock().answered.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, method: Method, path: String, customer: usize, body: Bytes) -> Ask {
        let key = (method == Method::POST).then(|| Uuid::now_v7().to_string());
        let authorization = self.customers[customer].clone();
        Ask { method, path, authorization, idempotency_key: key, body }
    }

    fn create(&self) -> (&'static str, Ask, Sent) {
        let mut random = rand::rng();
        let customer = random.random_range(0..self.customers.len());
        let body = order(random.random_range(0..1000), random.random_range(1..10));
        ("create", self.ask(Method::POST, "/api/v1/orders".into(), customer, body), Sent::Create(customer))
    }
}

impl Work for Mix {
    type Sent = Sent;

    fn next(&self) -> (&'static str, Ask, Sent) {
        let mut random = rand::rng();
        let dice = random.random_range(0..100_u32);
        if (READS..READS + CREATES).contains(&dice) {
            return self.create();
        }
        if (READS + CREATES..READS + CREATES + LISTS).contains(&dice) {
            let customer = random.random_range(0..self.customers.len());
            let ask = self.ask(Method::GET, "/api/v1/orders".into(), customer, Bytes::new());
            return ("list", ask, Sent::Look);
        }
        let mut orders = self.lock();
        if orders.live.is_empty() {
            drop(orders);
            return self.create();
        }
        let index = random.random_range(0..orders.live.len());
        let live = orders.live[index];
        let path = format!("/api/v1/orders/{}", live.id);
        if dice < READS {
            return ("read", self.ask(Method::GET, path, live.customer, Bytes::new()), Sent::Look);
        }
        orders.live.swap_remove(index);
        // An order goes its way once: created, confirmed, shipped, delivered; after that it can only be deleted.
        let next = ["CONFIRMED", "SHIPPED", "DELIVERED"]
            .get(usize::try_from(live.version - 1).unwrap_or(usize::MAX));
        match next {
            Some(status) if dice < READS + CREATES + LISTS + UPDATES => {
                let body = format!(r#"{{"status":"{status}"}}"#).into();
                ("update", self.ask(Method::PATCH, path, live.customer, body), Sent::Update(Held(live)))
            }
            _ => (
                "delete",
                self.ask(Method::DELETE, path, live.customer, Bytes::new()),
                Sent::Delete(Held(live)),
            ),
        }
    }

    fn answered(&self, sent: Sent, answer: &Answer) {
        let Answer::Http(status, body) = answer else { return };
        match (sent, *status) {
            (Sent::Create(customer), StatusCode::CREATED) => {
                let Ok(Written { id, version }) = serde_json::from_slice(body) else { return };
                let mut orders = self.lock();
                orders.answered.insert(id, version);
                orders.live.push(Live { id, customer, version });
            }
            (Sent::Update(Held(live)), StatusCode::OK) => {
                let Ok(Written { id, version }) = serde_json::from_slice(body) else { return };
                let mut orders = self.lock();
                orders.answered.insert(id, version);
                orders.live.push(Live { version, ..live });
            }
            (Sent::Delete(Held(live)), StatusCode::NO_CONTENT) => {
                self.lock().answered.insert(live.id, live.version + 1);
            }
            // Shed before anything was done: it can be tried again.
            (Sent::Update(Held(live)) | Sent::Delete(Held(live)), StatusCode::TOO_MANY_REQUESTS) => {
                self.lock().live.push(live);
            }
            // After anything else the state of the order is unknown, and no request touches it again.
            _ => {}
        }
    }
}

/// The body of a two-line order of these products.
pub(crate) fn order(product: u32, quantity: u32) -> Bytes {
    format!(
        r#"{{"order_date":"2025-01-20","lines":[{{"product_id":{},"quantity":{quantity},"unit_price":"25.50"}},{{"product_id":{},"quantity":1,"unit_price":"15.00"}}]}}"#,
        1001 + product,
        2001 + product
    )
    .into()
}

/// Creates only, without idempotency keys: what the `create` case sends.
#[derive(Debug)]
pub(crate) struct Creates(Mix);

impl Creates {
    /// By customers with these tokens.
    pub(crate) fn new(tokens: &[String]) -> Self {
        Self(Mix::new(tokens))
    }
}

impl Work for Creates {
    type Sent = ();

    fn next(&self) -> (&'static str, Ask, ()) {
        let (kind, ask, _) = self.0.create();
        (kind, Ask { idempotency_key: None, ..ask }, ())
    }

    fn answered(&self, (): (), _: &Answer) {}
}
