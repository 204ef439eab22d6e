//! A long proof, by `cargo xtask test --ignored -p api tenants_hostile`: a hundred thousand requests with what belongs to another
//! tenant, and how long the answers take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::macros::datetime;

use crate::{
    orders_support::{order, path},
    support::{Session, TestApp},
};

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
/// Within this time wrong passwords are counted.
const COUNTED_FOR: time::Duration = time::Duration::minutes(15);
const REQUESTS: usize = 100_000;
/// Requests under way.
const AT_ONCE: usize = 16;
/// Requests of each kind whose times are compared.
const TIMED: usize = 500;

/// What a tenant has that another one could send.
struct Loot {
    orders: Vec<i64>,
    list_cursors: Vec<String>,
    feed_cursors: Vec<String>,
}

impl Loot {
    async fn of(app: &TestApp, customer: &Session, admin: &Session) -> Self {
        let mut orders = Vec::new();
        for number in 0..30 {
            let mut body = order();
            body["reference"] = json!(format!("R-{number}"));
            let request = customer.request(Method::POST, "/api/v1/orders").json(&body);
            let created =
                crate::support::answer(request.header("idempotency-key", format!("k{number}"))).await;
            orders.push(created.expect(StatusCode::CREATED).json["id"].as_i64().expect("an id"));
        }
        for (index, id) in orders.iter().enumerate() {
            match index % 3 {
                0 => drop(
                    customer.patch(&path(*id), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK),
                ),
                1 => drop(customer.delete(&path(*id)).await.expect(StatusCode::NO_CONTENT)),
                _ => {}
            }
        }
        app.sequenced().await;
        let (mut list_cursors, mut feed_cursors) = (Vec::new(), Vec::new());
        for session in [customer, admin] {
            let text = |value: &Value| value.as_str().expect("a cursor").to_owned();
            list_cursors.push(text(&session.get("/api/v1/orders?size=3").await.json["next_cursor"]));
            let events = session.page("after=start").await;
            feed_cursors.extend(
                events["events"].as_array().expect("events").iter().map(|event| text(&event["cursor"])),
            );
        }
        Self { orders, list_cursors, feed_cursors }
    }
}

/// Sends one request with another tenant's id or cursor, chosen by the generator, and returns what it was and its status.
async fn attack(session: &Session, loot: &Loot, seed: u64) -> (String, StatusCode) {
    let mut random = StdRng::seed_from_u64(seed);
    let id = *loot.orders.choose(&mut random).expect("orders");
    let tag = ["\"1\"", "\"2\"", "*"].choose(&mut random).expect("tags");
    let header = ["if-match", "if-none-match", "idempotency-key"].choose(&mut random).expect("headers");
    let value = if *header == "idempotency-key" {
        format!("k{}", random.random_range(0..30))
    } else {
        (*tag).to_owned()
    };
    let body = [
        json!({"status": "SHIPPED"}),
        json!({"status": "CANCELLED", "reference": "R-1"}),
        json!({"metadata": {"a": "b"}}),
        json!({}),
    ];
    let body = body.choose(&mut random).expect("bodies");
    let cursor = loot.list_cursors.choose(&mut random).expect("cursors");
    let place = loot.feed_cursors.choose(&mut random).expect("cursors");
    let (method, path, body) = match random.random_range(0..9) {
        0 => (Method::GET, path(id), None),
        1 => (Method::PUT, path(id), Some(body)),
        2 => (Method::PATCH, path(id), Some(body)),
        3 => (Method::DELETE, path(id), None),
        4 => (Method::GET, format!("{}/history", path(id)), None),
        5 => (Method::GET, format!("/api/v1/orders?cursor={cursor}"), None),
        6 => (Method::GET, format!("/api/v1/orders/export?cursor={cursor}"), None),
        7 => (Method::GET, format!("/api/v1/events?after={place}"), None),
        _ => (Method::GET, format!("/api/v1/events?after={place}&wait=1&order_id={id}"), None),
    };
    let answer = session.send(method.clone(), &path, &[(*header, &value)], body).await;
    (format!("{method} {path} {header}: {value}"), answer.status)
}

async fn two_tenants() -> (TestApp, [Session; 3], Loot) {
    let app = TestApp::start().await;
    let tenant = app.create_tenant("other").await;
    let admin = app.login_as(&json!({"tenant": tenant, "customer_id": 9, "role": "admin"})).await;
    let loot = Loot::of(&app, &app.login_in(tenant, 1).await, &admin).await;
    let auditor = app.login_as(&json!({"customer_id": 8, "role": "auditor"})).await;
    let attackers = [app.login(1).await, app.login_admin(9).await, auditor];
    // They have orders of their own, so that each route has something to show.
    attackers[0].place(&order()).await;
    let mut body = order();
    body["customer_id"] = json!(9);
    attackers[1].place(&body).await;
    (app, attackers, loot)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long proof"]
async fn a_hundred_thousand_requests_with_what_is_another_tenants_find_nothing() {
    let (_app, attackers, loot) = two_tenants().await;
    let begun = Instant::now();
    let mut answers = stream::iter(0..REQUESTS)
        .map(|number| {
            attack(&attackers[number % attackers.len()], &loot, u64::try_from(number).expect("small"))
        })
        .buffer_unordered(AT_ONCE);
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    while let Some((request, status)) = answers.next().await {
        // An auditor may not change anything, whoever it belongs to.
        let refusals = [
            StatusCode::NOT_FOUND,
            StatusCode::BAD_REQUEST,
            StatusCode::UNPROCESSABLE_ENTITY,
            StatusCode::FORBIDDEN,
        ];
        assert!(refusals.contains(&status), "{request}: {status}");
        *counts.entry(status.as_u16()).or_default() += 1;
    }
    eprintln!("{REQUESTS} requests in {:?}: {counts:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long proof, which needs the machine for itself"]
async fn another_tenants_order_takes_as_long_as_one_that_is_not_there() {
    let (_app, [customer, admin, _], loot) = two_tenants().await;
    let theirs = loot.orders[2];
    let none = theirs + 1_000_000;
    for (name, session) in [("customer", &customer), ("admin", &admin)] {
        for (method, suffix) in
            [(Method::GET, ""), (Method::GET, "/history"), (Method::PATCH, ""), (Method::DELETE, "")]
        {
            let body = json!({"status": "SHIPPED"});
            let body = (method == Method::PATCH).then_some(&body);
            let time = async |id| {
                let begun = Instant::now();
                let answer = session.send(method.clone(), &format!("{}{suffix}", path(id)), &[], body).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND);
                begun.elapsed()
            };
            let (mut of_theirs, mut of_none) = (Vec::new(), Vec::new());
            for _ in 0..TIMED {
                of_theirs.push(time(theirs).await);
                of_none.push(time(none).await);
            }
            expect_alike(&format!("{name} {method}{suffix}: not yours, not there"), of_theirs, of_none);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long proof, which needs the machine for itself"]
async fn a_login_takes_as_long_whether_or_not_there_is_the_tenant_or_the_account() {
    let clock = Clock::manual(datetime!(2025-01-20 10:00 UTC));
    let app = TestApp::with().exact_limits(&clock).start().await;
    app.create_tenant("shop").await;
    let body = |email: &str, slug: &str| json!({"email": email, "password": "wrong horse", "tenant": slug});
    let account = json!({"email": "ada@example.com", "password": "correct horse", "tenant": "shop"});
    app.post(REGISTER, &account).await.expect(StatusCode::CREATED);
    let time = async |email, slug| {
        // So that the wrong passwords before do not count.
        clock.advance(COUNTED_FOR);
        let begun = Instant::now();
        app.post(LOGIN, &body(email, slug)).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
        begun.elapsed()
    };
    let (mut of_one, mut of_no_account, mut of_no_tenant) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TIMED {
        of_one.push(time("ada@example.com", "shop").await);
        of_no_account.push(time("eve@example.com", "shop").await);
        of_no_tenant.push(time("ada@example.com", "no-shop").await);
    }
    expect_alike("login: an account, no account", of_one.clone(), of_no_account);
    expect_alike("login: an account, no tenant", of_one, of_no_tenant);
}

/// Fails if the medians differ by more than a twentieth.
#[track_caller]
fn expect_alike(what: &str, one: Vec<Duration>, other: Vec<Duration>) {
    let (one, other) = (median(one), median(other));
    let ratio = one.as_secs_f64() / other.as_secs_f64();
    eprintln!("{what}: {one:?}, {other:?}: {ratio:.3}");
    assert!((0.95..1.05).contains(&ratio), "{what}: {ratio}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long proof, which needs the machine for itself"]
async fn a_tenant_at_ten_times_its_quota_does_not_slow_another_one() {
    const QUOTA: u32 = 50;
    const SECONDS: u32 = 20;
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let limit = format!("{QUOTA}/1s");
    let [loud, quiet] =
        ["loud", "quiet"].map(|slug| json!({"slug": slug, "name": slug, "rate_limit": limit}));
    let (loud, quiet) = (operator.create_tenant(&loud).await, operator.create_tenant(&quiet).await);
    let (loud, quiet) = (app.login_in(loud, 1).await, app.login_in(quiet, 1).await);
    let id = quiet.place(&order()).await;
    // Reads and writes in turn, at four fifths of the quota.
    let measure = async || {
        let mut times = Vec::new();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) * 5 / (QUOTA * 4));
        for number in 0..SECONDS * QUOTA * 4 / 5 {
            ticks.tick().await;
            let begun = Instant::now();
            let answer = if number % 2 == 0 {
                quiet.get(&path(id)).await.expect(StatusCode::OK)
            } else {
                quiet.post("/api/v1/orders", &order()).await.expect(StatusCode::CREATED)
            };
            drop(answer);
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        times[times.len() * 99 / 100]
    };
    let alone = measure().await;
    let refused = Arc::new(AtomicU32::new(0));
    let shout = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / (QUOTA * 10));
        loop {
            ticks.tick().await;
            let loud = loud.clone();
            let refused = Arc::clone(&refused);
            tokio::spawn(async move {
                if loud.post("/api/v1/orders", &order()).await.status == StatusCode::TOO_MANY_REQUESTS {
                    refused.fetch_add(1, Relaxed);
                }
            });
        }
    };
    let beside = tokio::select! {
        beside = measure() => beside,
        () = shout => unreachable!("it never ends"),
    };
    assert!(refused.load(Relaxed) > SECONDS * QUOTA, "the loud tenant was not loud");
    eprintln!("99th percentile: {alone:?} alone, {beside:?} beside a tenant at ten times its quota");
    assert!(beside < alone * 2, "{alone:?} alone, {beside:?} beside it");
}
