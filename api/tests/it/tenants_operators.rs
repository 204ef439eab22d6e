//! Operators who act in another tenant than that of their token: who they are there, and when they are let in.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use testbed::eventually;
use time::macros::datetime;

use crate::{
    bulk_support::{EXPORT, IMPORT, NDJSON, RawStream, ndjson_file},
    feed_support::{Stream, orders_of},
    orders_support::{order, path},
    support::{Answer, Session, TestApp, answer},
    tenants_support::{TENANTS, tenant_path},
};

const ORDERS: &str = "/api/v1/orders";
const EVENTS: &str = "/api/v1/events";
/// The number of the operator in its own tenant, and of a customer in the other one.
const NUMBER: i64 = 71;
/// More rows than the kernel buffers of an export until its client reads on.
const MANY: i64 = 20_000;

/// An operator of one tenant that acts in another one, in which a customer has its number.
struct Visit {
    app: TestApp,
    /// An operator of the default tenant.
    chief: Session,
    home: i64,
    tenant: i64,
    /// The operator, at home.
    operator: Session,
    /// The same, acting in the other tenant.
    visitor: Session,
    customer: Session,
}

impl Visit {
    async fn begin() -> Self {
        let app = TestApp::start().await;
        let chief = app.login_operator().await;
        let (home, tenant) = (app.create_tenant("home").await, app.create_tenant("shop").await);
        let body = json!({"customer_id": NUMBER, "role": "operator", "tenant": home});
        let operator = app.login_as(&body).await;
        let visitor = operator.acting_in(tenant);
        let customer = app.login_in(tenant, NUMBER).await;
        Self { app, chief, home, tenant, operator, visitor, customer }
    }

    /// Orders of the shop, written without the API.
    async fn seed_orders(&self, count: i64) {
        self.app.seed_orders(NUMBER, count).await;
        for table in ["orders", "order_lines"] {
            let moved = format!("UPDATE {table} SET tenant_id = {} WHERE tenant_id = 1", self.tenant);
            sqlx::query(sqlx::AssertSqlSafe(moved)).execute(&self.app.db).await.expect("they move");
        }
    }

    /// Opens all that can stay open in the shop, and expects each to end when `close` has been called.
    async fn expect_all_ends_by(&self, close: impl AsyncFnOnce()) {
        self.seed_orders(MANY).await;
        let mut export = RawStream::open(&self.app, &self.visitor, "GET", EXPORT).await;
        export.line().await.expect("a first line");
        let mut stream = self.visitor.stream("after=now").await;
        stream.next().await;
        let poll = tokio::spawn({
            let visitor = self.visitor.clone();
            async move { visitor.events("after=now&wait=30").await }
        });
        let mut import = RawStream::open(&self.app, &self.visitor, "POST", IMPORT).await;
        import.send(&ndjson_file(NUMBER, 1)).await.expect("the import is under way");
        assert_eq!(import.line().await.expect("a result")["status"], 201);

        close().await;
        let mut end = import.line().await.expect("a line");
        while end["complete"].is_null() {
            end = import.line().await.expect("the last line");
        }
        assert_eq!((&end["complete"], &end["problem"]["code"]), (&json!(false), &json!("tenant_suspended")));
        stream.ends().await;
        while let Some(line) = export.line().await {
            assert!(line["complete"].is_null(), "it is cut");
        }
        // It may have been answered by the event of the import.
        poll.await.expect("no panic");
        expect_suspended(self.visitor.get(ORDERS).await);
    }
}

#[track_caller]
fn expect_suspended(answer: Answer) {
    answer.expect_problem(StatusCode::FORBIDDEN, "tenant_suspended");
}

/// An order of the customer.
fn order_of_customer() -> Value {
    let mut body = order();
    body["customer_id"] = json!(NUMBER);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_has_open_elsewhere_ends_when_its_own_tenant_is_suspended() {
    let visit = Visit::begin().await;
    visit.expect_all_ends_by(async || visit.chief.suspend(visit.home).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_has_open_elsewhere_ends_when_its_own_tenant_is_removed() {
    let visit = Visit::begin().await;
    let remove = async || {
        visit.chief.delete(&tenant_path(visit.home)).await.expect(StatusCode::ACCEPTED);
    };
    visit.expect_all_ends_by(remove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_has_open_elsewhere_ends_when_that_tenant_is_removed() {
    let visit = Visit::begin().await;
    let remove = async || {
        visit.chief.delete(&tenant_path(visit.tenant)).await.expect(StatusCode::ACCEPTED);
    };
    visit.expect_all_ends_by(remove).await;
}

#[tokio::test]
async fn a_long_poll_of_an_operator_ends_when_its_own_tenant_is_suspended() {
    let visit = Visit::begin().await;
    let poll = tokio::spawn({
        let visitor = visit.visitor.clone();
        async move { visitor.events("after=now&wait=30").await }
    });
    eventually("it waits", async || visit.app.app.state.feed.waiting() > 0).await;
    visit.chief.suspend(visit.home).await;
    // Long before its time is over.
    let answered = tokio::time::timeout(Duration::from_secs(15), poll).await.expect("an answer in time");
    assert_eq!(answered.expect("no panic").expect(StatusCode::OK).json["events"], json!([]));
}

#[tokio::test]
async fn an_operator_acts_in_a_suspended_tenant_until_its_removal_begins() {
    let visit = Visit::begin().await;
    let id = visit.customer.place(&order()).await;
    let mut stream = visit.visitor.stream("after=now").await;
    stream.next().await;
    visit.chief.suspend(visit.tenant).await;
    expect_suspended(visit.customer.get(&path(id)).await);
    // It looks at orders, changes them, and what it had open goes on.
    visit.visitor.get(&path(id)).await.expect(StatusCode::OK);
    visit.visitor.patch(&path(id), &json!({"status": "CONFIRMED"})).await.expect(StatusCode::OK);
    assert_eq!(stream.event().await.order(), id);
    visit.visitor.ticket().await;
    let imported = visit.visitor.import(NDJSON, None, ndjson_file(NUMBER, 2)).await;
    assert_eq!(imported.statuses(), [201, 201]);
    // It ends sessions.
    let logout = visit.visitor.post("/api/v1/auth/logout-all", &json!({"customer_id": NUMBER})).await;
    logout.expect(StatusCode::NO_CONTENT);
    visit.chief.change_tenant(visit.tenant, &json!({"suspended": false})).await.expect(StatusCode::OK);
    let refreshed = visit.app.refresh(&visit.customer.refresh).await;
    refreshed.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");

    visit.chief.delete(&tenant_path(visit.tenant)).await.expect(StatusCode::ACCEPTED);
    let refused = visit.visitor.get(ORDERS).await;
    let refused = refused.expect_problem(StatusCode::FORBIDDEN, "tenant_suspended");
    assert_eq!(refused.json["detail"], "the tenant is being removed");
    stream.ends().await;
    // Whoever is of a suspended tenant can act nowhere.
    visit.chief.suspend(visit.home).await;
    for session in [&visit.operator, &visit.operator.acting_in(1)] {
        expect_suspended(session.get(ORDERS).await);
    }
}

#[tokio::test]
async fn a_session_can_end_while_its_tenant_is_suspended() {
    let visit = Visit::begin().await;
    let token = json!({"refresh_token": visit.customer.refresh});
    visit.chief.suspend(visit.tenant).await;
    visit.app.post("/api/v1/auth/logout", &token).await.expect(StatusCode::NO_CONTENT);
    visit.chief.change_tenant(visit.tenant, &json!({"suspended": false})).await.expect(StatusCode::OK);
    let refreshed = visit.app.refresh(&visit.customer.refresh).await;
    refreshed.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    visit.chief.delete(&tenant_path(visit.tenant)).await.expect(StatusCode::ACCEPTED);
    expect_suspended(visit.app.post("/api/v1/auth/logout", &token).await);
}

#[tokio::test]
async fn an_operator_takes_no_place_of_the_customer_that_has_its_number() {
    let visit = Visit::begin().await;
    let mut streams = Vec::new();
    for session in [&visit.visitor, &visit.visitor, &visit.visitor, &visit.operator, &visit.operator] {
        streams.push(session.stream("after=now").await);
    }
    // Wherever it acts, it is one.
    for session in [&visit.visitor, &visit.operator] {
        let sixth = session.stream_request("after=now").send().await.expect("an answer");
        assert_eq!(sixth.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    for _ in 0..5 {
        streams.push(visit.customer.stream("after=now").await);
    }

    let mut import = RawStream::open(&visit.app, &visit.visitor, "POST", IMPORT).await;
    import.send(&ndjson_file(NUMBER, 1)).await.expect("the import is under way");
    assert_eq!(import.line().await.expect("a result")["status"], 201);
    let second = visit.operator.request(Method::POST, IMPORT).header("content-type", NDJSON);
    let second = answer(second.body(ndjson_file(NUMBER, 1))).await;
    second.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert_eq!(visit.customer.import(NDJSON, None, ndjson_file(NUMBER, 1)).await.statuses(), [201]);
}

#[tokio::test]
async fn the_keys_of_an_operator_elsewhere_are_no_customers() {
    let visit = Visit::begin().await;
    let (shop, home) = (visit.tenant, visit.home);
    let chief = visit.operator.acting_in(1);
    let neighbour = visit.app.login(NUMBER).await;
    let sessions = [&visit.visitor, &visit.customer, &visit.operator, &chief, &neighbour];
    for (product, session) in (1..).zip(sessions) {
        let mut body = order_of_customer();
        body["lines"][0]["product_id"] = json!(product);
        let post =
            async || session.send(Method::POST, ORDERS, &[("idempotency-key", "k")], Some(&body)).await;
        let (first, again) = (post().await.expect(StatusCode::CREATED), post().await);
        assert_eq!(first.header("idempotent-replayed"), None);
        assert_eq!((again.header("idempotent-replayed"), &again.bytes), (Some("true"), &first.bytes));
        // Rows of files have keys of their own.
        let imported = session.import(NDJSON, Some("file"), ndjson_file(NUMBER, 1)).await;
        assert_eq!((imported.statuses(), &imported.end["replayed"]), (vec![201], &json!(0)));
    }
    let keys: Vec<String> = sqlx::query_scalar(
        "SELECT key FROM idempotency_keys WHERE customer_id = $1 AND key LIKE '%k' ORDER BY created_at",
    )
    .bind(NUMBER)
    .fetch_all(&visit.app.db)
    .await
    .unwrap();
    // Those of the shop go with it: they begin with its number and a space.
    let expected = [
        format!("{shop} {home} k"),
        format!("{shop} k"),
        format!("{home} k"),
        format!("1 {home} k"),
        "k".to_owned(),
    ];
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn what_an_operator_did_elsewhere_is_recorded_under_its_own_tenant() {
    let visit = Visit::begin().await;
    let id = visit.customer.place(&order()).await;
    visit.visitor.patch(&path(id), &json!({"status": "CONFIRMED"})).await.expect(StatusCode::OK);
    let body = json!({"orders": [order_of_customer()], "on_error": "skip"});
    visit.visitor.post("/api/v1/orders/batch", &body).await.expect(StatusCode::OK);
    let imported = visit.visitor.import(NDJSON, None, ndjson_file(NUMBER, 1)).await;
    visit.visitor.delete(&path(imported.ids()[0])).await.expect(StatusCode::NO_CONTENT);
    visit.operator.post(ORDERS, &order_of_customer()).await.expect(StatusCode::CREATED);
    visit.app.sequenced().await;
    let doers: Vec<(i64, Option<i64>)> = sqlx::query_as(
        "SELECT (data ->> 'performed_by')::bigint, (data ->> 'performed_by_tenant')::bigint
         FROM (SELECT id, payload::json -> 'data' AS data FROM outbox) AS events ORDER BY id",
    )
    .fetch_all(&visit.app.db)
    .await
    .unwrap();
    let away = (NUMBER, Some(visit.home));
    assert_eq!(doers, [(NUMBER, None), away, away, away, away, (NUMBER, None)]);

    // Recorded as the worker does.
    sqlx::query(
        "INSERT INTO order_history (order_id, tenant_id, version, action, changes, customer_id, performed_by, performed_by_tenant,
                                    event_id, occurred_at)
         SELECT order_id, tenant_id, version, 'UPDATED', '{}', $2, $2, (payload::json #>> '{data,performed_by_tenant}')::integer,
                event_id, now()
         FROM outbox WHERE order_id = $1",
    )
    .bind(id)
    .bind(NUMBER)
    .execute(&visit.app.db)
    .await
    .unwrap();
    for session in [&visit.customer, &visit.visitor] {
        let history = session.get(&format!("{}/history", path(id))).await.expect(StatusCode::OK);
        let entries = &history.json["entries"];
        assert_eq!(entries[0].get("performed_by_tenant"), None);
        assert_eq!(
            (&entries[1]["performed_by"], &entries[1]["performed_by_tenant"]),
            (&json!(NUMBER), &json!(visit.home))
        );
    }
}

#[tokio::test]
async fn a_ticket_opens_the_feed_of_the_tenant_for_which_it_was_issued_and_of_no_other() {
    let visit = Visit::begin().await;
    let (shop, home) = (visit.customer.place(&order()).await, visit.app.login_in(visit.home, 5).await);
    let at_home = home.place(&order()).await;
    visit.app.sequenced().await;
    let issue = async |session: &Session| {
        session.ticket().await.json["ticket"].as_str().expect("a ticket").to_owned()
    };
    for (session, order) in
        [(&visit.visitor, shop), (&visit.operator, at_home), (&visit.customer, shop), (&home, at_home)]
    {
        let ticket = issue(session).await;
        let request = || {
            let request = visit.app.request(Method::GET, &format!("{EVENTS}?after=start&ticket={ticket}"));
            request.header("accept", "text/event-stream")
        };
        for other in [visit.tenant, visit.home, 1, 4711] {
            let refused = answer(request().header("x-tenant-id", other)).await;
            refused.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
        }
        // It was not used up.
        let mut stream = Stream::open(request()).await;
        assert_eq!(stream.event().await.order(), order);
    }
    // What it opens ends with the operator's own tenant.
    let ticket = issue(&visit.visitor).await;
    let request = visit.app.request(Method::GET, &format!("{EVENTS}?after=now&ticket={ticket}"));
    let mut stream = Stream::open(request.header("accept", "text/event-stream")).await;
    stream.next().await;
    let unused = issue(&visit.visitor).await;
    visit.chief.suspend(visit.home).await;
    stream.ends().await;
    let request = visit.app.request(Method::GET, &format!("{EVENTS}?ticket={unused}"));
    expect_suspended(answer(request.header("accept", "text/event-stream")).await);
}

#[tokio::test]
async fn the_feed_of_an_operator_is_that_of_the_tenant_in_which_it_acts() {
    let visit = Visit::begin().await;
    let id = visit.customer.place(&order()).await;
    visit.app.sequenced().await;
    assert_eq!(orders_of(&visit.visitor.page("after=start").await), [id]);
    assert_eq!(orders_of(&visit.operator.page("after=start").await), Vec::<i64>::new());
}

#[tokio::test]
async fn an_operator_is_counted_as_a_customer_and_by_the_quota_of_no_tenant() {
    let clock = Clock::manual(datetime!(2025-01-20 10:00 UTC));
    let app = TestApp::with().exact_limits(&clock).set("RATE_LIMIT_CUSTOMER", "12/3600s").start().await;
    let operator = app.login_operator().await;
    let tenant = app.create_tenant("shop").await;
    for tenant in [1, tenant] {
        operator.change_tenant(tenant, &json!({"rate_limit": "1/3600s"})).await.expect(StatusCode::OK);
    }
    let (here, there) = (app.login(NUMBER).await, app.login_in(tenant, NUMBER).await);
    for customer in [&here, &there] {
        customer.get(ORDERS).await.expect(StatusCode::OK);
        customer.get(ORDERS).await.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    }
    for session in [&operator, &operator.acting_in(tenant)] {
        let seen = session.get(ORDERS).await.expect(StatusCode::OK);
        assert_eq!(seen.header("ratelimit-policy"), Some(r#""customer";q=12;w=3600"#));
    }
    // So it can take away a quota that others have used up.
    operator.change_tenant(1, &json!({"rate_limit": null})).await.expect(StatusCode::OK);
    here.get(ORDERS).await.expect(StatusCode::OK);
    // Its own requests have an end, wherever it acts.
    eventually("its limit is used up", async || {
        operator.acting_in(tenant).get(ORDERS).await.status == StatusCode::TOO_MANY_REQUESTS
    })
    .await;
    operator.get(ORDERS).await.expect_problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn a_key_of_a_change_of_tenants_is_the_operators_whatever_tenant_the_header_names() {
    let visit = Visit::begin().await;
    let Visit { operator, visitor, .. } = &visit;
    let sessions = [operator.clone(), visitor.clone(), operator.acting_in(4711)];
    let body = json!({"slug": "new", "name": "New"});
    let replays = [None, Some("true"), Some("true")];
    for (session, replayed) in sessions.iter().zip(replays) {
        let created = session.send(Method::POST, TENANTS, &[("idempotency-key", "new")], Some(&body)).await;
        assert_eq!(created.expect(StatusCode::CREATED).header("idempotent-replayed"), replayed);
    }
    let rename = json!({"name": "Newer"});
    for (session, replayed) in sessions.iter().zip(replays) {
        let headers = [("idempotency-key", "rename")];
        let renamed = session.send(Method::PATCH, &tenant_path(visit.tenant), &headers, Some(&rename)).await;
        assert_eq!(renamed.expect(StatusCode::OK).header("idempotent-replayed"), replayed);
    }
    // The header gives nobody else a right.
    for session in [&visit.customer, &visit.customer.acting_in(visit.home)] {
        session.get(TENANTS).await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    }
    // Also in the tenant that is being removed.
    for session in &sessions {
        session.delete(&tenant_path(visit.tenant)).await.expect(StatusCode::ACCEPTED);
    }
}
