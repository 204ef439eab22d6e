//! An API that is used in every way that needs PostgreSQL, again and again, while PostgreSQL fails.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testbed::eventually_within;

use crate::{
    orders_support::{order, path},
    support::{Answer, Options, Session, TestApp, answer},
};

/// Recovery is promised within ten seconds; a busy machine gets as many more.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// An API whose PostgreSQL is not the one of `app.db`.
pub(crate) struct FailingApp {
    pub(crate) app: TestApp,
    session: Session,
    order: AtomicUsize,
    round: AtomicUsize,
}

impl FailingApp {
    pub(crate) async fn start(options: Options, url: &str) -> Self {
        let (database, redis) = tokio::join!(testbed::postgres(), testbed::redis());
        let options = options.set("DATABASE_URL", url).set("TRUSTED_PROXIES", "1");
        let app = TestApp::start_with(options, database, redis).await;
        let session = app.session(1);
        Self { app, session, order: AtomicUsize::new(0), round: AtomicUsize::new(0) }
    }

    /// Uses every connection, so that each is open.
    pub(crate) async fn warm_up(&self) {
        eventually_within(SOON, "everything works", async || self.everything_works().await).await;
        for _ in 0..3 {
            let reads = (0..8).map(|_| self.session.get("/api/v1/orders"));
            futures_util::future::join_all(reads).await;
        }
    }

    /// Waits until every request is answered as if nothing had happened. Until then each is answered by 503, or by 504 if the
    /// outcome is unknown.
    pub(crate) async fn recovers(&self) {
        eventually_within(SOON, "everything works again", async || self.everything_works().await).await;
    }

    /// One request of each kind, all at once. Says which are not answered well yet.
    pub(crate) async fn everything_works(&self) -> Result<(), String> {
        let round = self.round.fetch_add(1, Ordering::SeqCst);
        let credentials =
            json!({"email": format!("ada{round}@example.com"), "password": "correct horse battery"});
        let known = i64::try_from(self.order.load(Ordering::SeqCst)).unwrap_or(i64::MAX);
        let known = path(if known == 0 { i64::MAX } else { known });
        let history = format!("{known}/history");
        let (new, date) = (order(), json!({"order_date": format!("2025-01-{:02}", round % 28 + 1)}));
        let nobody =
            json!({"email": format!("nobody{round}@example.com"), "password": "correct horse battery"});
        let keyed = self.session.request(Method::POST, "/api/v1/orders").json(&new);
        let keyed = keyed.header("Idempotency-Key", format!("round-{round}"));
        // From one address only so many accounts can be registered.
        let from_elsewhere = |path: &str, body: &Value| {
            let request = self.app.request(Method::POST, path).json(body);
            answer(request.header("X-Forwarded-For", format!("192.0.2.{}", round % 256)))
        };
        let (created, keyed, changed, list, history, registered, unknown, ready) = tokio::join!(
            self.session.post("/api/v1/orders", &new),
            answer(keyed),
            self.session.patch(&known, &date),
            self.session.get("/api/v1/orders"),
            self.session.get(&history),
            from_elsewhere("/api/v1/auth/register", &credentials),
            from_elsewhere("/api/v1/auth/login", &nobody),
            self.app.get("/api/v1/health/ready"),
        );
        let is_first = self.order.load(Ordering::SeqCst) == 0;
        if created.status == StatusCode::CREATED {
            let id = created.json["id"].as_u64().and_then(|id| usize::try_from(id).ok()).expect("an id");
            self.order.store(id, Ordering::SeqCst);
        }
        let known = if is_first { StatusCode::NOT_FOUND } else { StatusCode::OK };
        let mut wrong = Vec::new();
        for (what, answer, status) in [
            ("create", created, StatusCode::CREATED),
            ("create with a key", keyed, StatusCode::CREATED),
            ("change", changed, known),
            ("list", list, StatusCode::OK),
            ("history", history, known),
            ("register", registered, StatusCode::CREATED),
            ("login", unknown, StatusCode::UNAUTHORIZED),
            ("ready", ready, StatusCode::OK),
        ] {
            if answer.status != status {
                wrong.push(format!("{what}: {}", outage(&answer)));
            }
        }
        if let Err(why) = self.published().await {
            wrong.push(why);
        }
        if is_first && wrong.is_empty() {
            wrong.push("the first order was not changed yet".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// One request of each kind. Says which were not answered well the first time.
    pub(crate) async fn everything_but_the_relay_works_at_once(&self) -> Result<(), String> {
        let Err(wrong) = self.everything_works().await else { return Ok(()) };
        // Readiness has a second for its probe, which may be too short on a busy machine.
        if wrong.replace("ready: 503", "").contains(": 50") { Err(wrong) } else { Ok(()) }
    }

    /// Whether the relay has published what was committed, as health says.
    async fn published(&self) -> Result<(), String> {
        let report = self.app.get("/api/v1/health").await;
        let waiting = &report.json["services"]["events"]["unpublished"];
        if *waiting == 0 { Ok(()) } else { Err(format!("unpublished: {waiting}")) }
    }

    pub(crate) async fn drain(self) {
        self.app.drain().await;
    }
}

/// An answer that is right while PostgreSQL is away.
#[track_caller]
fn outage(answer: &Answer) -> StatusCode {
    let text = String::from_utf8_lossy(&answer.bytes);
    match answer.status {
        StatusCode::SERVICE_UNAVAILABLE => {
            assert!(answer.header("retry-after").is_some(), "503 without Retry-After: {text}");
        }
        StatusCode::GATEWAY_TIMEOUT => {}
        other => panic!("{other} while PostgreSQL is away: {text}"),
    }
    answer.status
}

/// Fails unless a standby has replayed what its primary has written. (A `bool` in the result would be no condition to wait for.)
pub(crate) async fn follows(
    primary: &testbed::PrivatePostgres,
    standby: &testbed::PrivatePostgres,
) -> Result<(), sqlx::Error> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(primary.url()).await?;
    let written: i64 = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        .fetch_one(&mut connection)
        .await?;
    let mut connection = sqlx::PgConnection::connect(standby.url()).await?;
    let replayed: i64 = sqlx::query_scalar("SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint")
        .fetch_one(&mut connection)
        .await?;
    if replayed >= written {
        return Ok(());
    }
    Err(sqlx::Error::Protocol(format!("it has replayed up to {replayed} of {written}")))
}
