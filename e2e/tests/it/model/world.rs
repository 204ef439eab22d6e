//! The system that sequences of commands share, and its answers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use e2e::Api;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::commands::PEOPLE;
use super::modelled::Entry;

/// Before a request that met an outage is sent again.
const PAUSE: Duration = Duration::from_millis(50);
/// The tenant of the second shop, beside the default one.
const SECOND_SHOP: &str = "second";
/// The default tenant.
pub(super) const FIRST_SHOP: i64 = 1;
/// No outage is longer.
const REPEAT_TIMEOUT: Duration = Duration::from_secs(30);

/// A request, to be sent once or again.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) who: usize,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
}

/// A person who is logged in.
pub(crate) struct Login {
    pub(super) token: String,
    /// The tenant that an operator names in its requests.
    pub(super) acts_in: Option<i32>,
}

impl Login {
    /// The request as this person sends it.
    pub(super) fn sign(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let request = request.bearer_auth(&self.token);
        match self.acts_in {
            Some(tenant) => request.header("x-tenant-id", tenant),
            None => request,
        }
    }
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) replayed: bool,
    pub(super) text: String,
    pub(super) json: Value,
}

/// The system that all sequences share.
pub(crate) struct World {
    pub(crate) replicas: Vec<Api>,
    pub(crate) http: reqwest::Client,
    pub(crate) db: PgPool,
    /// While a test has something fail.
    pub(crate) outage: Outage,
}

/// The time in which every server error is repeated under the same key. At any other time only those are which clients repeat.
#[derive(Default)]
pub(crate) struct Outage(Mutex<OutageState>);

#[derive(Default)]
struct OutageState {
    begun: Option<Instant>,
    ended: Option<Instant>,
    /// How often each was excused.
    errors: BTreeMap<String, usize>,
}

impl World {
    pub(crate) fn new(replicas: Vec<Api>, db: PgPool) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { replicas, http, db, outage: Outage::default() }
    }

    /// Logs all people in, whose customer ids begin with this one.
    pub(crate) async fn log_in_people(&self, base: i64) -> Vec<Login> {
        sqlx::query("INSERT INTO tenants (slug, name) VALUES ($1, $1) ON CONFLICT DO NOTHING")
            .bind(SECOND_SHOP)
            .execute(&self.db)
            .await
            .unwrap();
        let second = self.second_shop().await;
        let mut logins = Vec::new();
        for person in &PEOPLE {
            let home = if person.is_visitor() { 0 } else { person.shop };
            let tenant = ["default", SECOND_SHOP][home];
            let body = json!({"customer_id": base + person.number, "role": person.role, "tenant": tenant});
            let url = format!("{}/api/v1/auth/login-test", self.replicas[0].url);
            let pair = self.send(|| self.http.post(&url).json(&body)).await;
            assert_eq!(pair.status, 200, "{}", pair.text);
            let token = pair.json["accessToken"].as_str().unwrap().to_owned();
            logins.push(Login { token, acts_in: person.is_visitor().then_some(second) });
        }
        logins
    }

    async fn second_shop(&self) -> i32 {
        let id = sqlx::query_scalar("SELECT id FROM tenants WHERE slug = $1").bind(SECOND_SHOP);
        id.fetch_one(&self.db).await.unwrap()
    }

    /// Sends a request, and again as long as an outage excuses its answer, or the answer asks for that: on a busy machine
    /// PostgreSQL or Redis may be late at any time.
    pub(super) async fn send(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Answer {
        let (mut is_repeated, begun) = (false, Instant::now());
        loop {
            let since = Instant::now();
            let answer = request().send().await.unwrap();
            let status = answer.status().as_u16();
            let replayed = answer.headers().contains_key("idempotent-replayed");
            let text = answer.text().await.unwrap();
            testbed::assert_without_decoy(&text);
            let json: Value = serde_json::from_str(&text).unwrap_or_default();
            assert!(begun.elapsed() < REPEAT_TIMEOUT, "never answered: {text}");
            let is_in_progress = is_repeated && json["code"] == "idempotency_in_progress";
            let is_excused = status >= 500 && self.outage.excuses(since, &json);
            if !is_in_progress && !is_excused && ![503, 504].contains(&status) {
                return Answer { status, replayed, text, json };
            }
            is_repeated = true;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the events of an order say, which all name its tenant.
    pub(super) async fn events(&self, shop: usize, id: i64) -> Vec<Entry> {
        let tenant = [Value::Null, json!(self.second_shop().await.to_string())][shop].clone();
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
                assert_eq!(body["tenantid"], tenant);
                let action = match kind.as_str() {
                    "OrderCreated" => "CREATED",
                    "OrderUpdated" => "UPDATED",
                    "OrderDeleted" => "DELETED",
                    other => panic!("{other}"),
                };
                let data = &body["data"];
                let performed_by =
                    (data["performed_by"].as_i64().unwrap(), data["performed_by_tenant"].as_i64());
                Entry { action, changes: data["changes"].clone(), performed_by }
            })
            .collect()
    }
}

impl Outage {
    /// From now on server errors are excused.
    pub(crate) fn begin(&self) {
        *self.lock() = OutageState { begun: Some(Instant::now()), ..OutageState::default() };
    }

    /// Requests that are sent from now on must be answered. Returns what was excused.
    pub(crate) fn end(&self) -> BTreeMap<String, usize> {
        let mut state = self.lock();
        state.ended = Some(Instant::now());
        std::mem::take(&mut state.errors)
    }

    /// Whether an error in answer to a request that was sent at this time is excused.
    fn excuses(&self, sent: Instant, problem: &Value) -> bool {
        let mut state = self.lock();
        let is_excused = state.begun.is_some() && state.ended.is_none_or(|ended| sent < ended);
        if is_excused {
            let instance = problem["instance"].as_str().unwrap_or_default();
            let route = instance.trim_end_matches(|letter: char| letter.is_ascii_digit());
            *state.errors.entry(format!("{} of {route}", problem["status"])).or_default() += 1;
        }
        is_excused
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OutageState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
