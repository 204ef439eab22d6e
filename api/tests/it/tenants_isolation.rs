//! Two shops whose customers have the same numbers: nothing of one is seen by the other, or changed by it.

use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::order::OrderKey;
use testbed::eventually;
use tokio::sync::Barrier;

use crate::{
    bulk_support::{EXPORT, NDJSON, json_lines, ndjson_file},
    orders_support::{order, path},
    support::{Answer, Session, TestApp},
};

/// An API, customer 1 and an administrator of the default tenant, and the same of another one.
pub(crate) struct TwoShops {
    pub(crate) app: TestApp,
    pub(crate) tenant: i64,
    pub(crate) here: [Session; 2],
    pub(crate) there: [Session; 2],
}

impl TwoShops {
    pub(crate) async fn open() -> Self {
        let app = TestApp::start().await;
        let tenant = app.create_tenant("other").await;
        let here = [app.login(1).await, app.login_admin(9).await];
        let admin = json!({"tenant": tenant, "customer_id": 9, "role": "admin"});
        let there = [app.login_in(tenant, 1).await, app.login_as(&admin).await];
        Self { app, tenant, here, there }
    }

    /// What an order of the other tenant is found by.
    pub(crate) fn key(&self, id: i64) -> OrderKey {
        let tenant = i32::try_from(self.tenant).expect("small").try_into().expect("positive");
        OrderKey { tenant, id: id.try_into().expect("positive") }
    }
}

/// The problem without what names the request.
fn problem(answer: &Answer) -> Value {
    let mut problem = answer.json.clone();
    for member in ["instance", "request_id"] {
        problem[member].take();
    }
    problem
}

/// Ids of a page.
fn ids(list: &Answer) -> Vec<i64> {
    list.json["orders"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|order| order["id"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn an_order_of_another_tenant_is_answered_like_one_that_is_not_there() {
    let shops = TwoShops::open().await;
    let id = shops.there[0].place(&order()).await;
    // Once from PostgreSQL, and once it is in the cache.
    for round in 0..2 {
        for session in &shops.here {
            for (method, body) in [
                (Method::GET, None),
                (Method::PUT, Some(json!({"status": "SHIPPED"}))),
                (Method::PATCH, Some(json!({"lines": [{"product_id": 1, "quantity": 1, "unit_price": 1}]}))),
                (Method::DELETE, None),
            ] {
                for headers in [
                    &[][..],
                    &[("if-match", "\"1\"")],
                    &[("if-match", "*")],
                    &[("if-none-match", "\"1\"")],
                    &[("if-match", "\"2\"")],
                ] {
                    let theirs = session.send(method.clone(), &path(id), headers, body.as_ref()).await;
                    let none =
                        session.send(method.clone(), &path(id + 1_000_000), headers, body.as_ref()).await;
                    let theirs = theirs.expect_problem(StatusCode::NOT_FOUND, "not_found");
                    assert_eq!(problem(&theirs), problem(&none), "{method} {headers:?} {round}");
                    let names = |answer: &Answer| {
                        let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
                        names.sort();
                        names
                    };
                    assert_eq!(names(&theirs), names(&none));
                }
            }
            let history = session.get(&format!("{}/history", path(id))).await;
            history.expect_problem(StatusCode::NOT_FOUND, "not_found");
        }
        let own = shops.there[0].get(&path(id)).await.expect(StatusCode::OK);
        assert_eq!((own.json["version"].as_i64(), own.header("etag")), (Some(1), Some("\"1\"")));
        if round == 0 {
            let key = format!("cache:order:{}:{id}", shops.tenant);
            let mut redis = shops.app.redis_connection().await;
            eventually("it is cached under its tenant", async || {
                shops.there[0].get(&path(id)).await.expect(StatusCode::OK);
                redis::cmd("EXISTS").arg(&key).query_async::<bool>(&mut redis).await == Ok(true)
            })
            .await;
        }
    }
    let history = shops.there[1].get(&format!("{}/history", path(id))).await.expect(StatusCode::OK);
    assert_eq!(history.json["order_id"], id);

    // Deleted: its tombstone is the other tenant's as well.
    shops.there[1].delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    shops.there[0].get(&format!("{}/history", path(id))).await.expect(StatusCode::OK);
    for session in &shops.here {
        for path in [path(id), format!("{}/history", path(id))] {
            session.get(&path).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
        }
    }
    assert_eq!(shops.app.events(id).await, ["OrderCreated 1", "OrderDeleted 2"]);
}

#[tokio::test]
async fn a_recorded_history_of_another_tenant_is_not_there() {
    let shops = TwoShops::open().await;
    let id = shops.there[0].place(&order()).await;
    for (tenant, order) in [(shops.tenant, id), (1, id + 1)] {
        sqlx::query(
            "INSERT INTO order_history
                 (tenant_id, order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
             VALUES ($1, $2, 1, 'CREATED', '{}', 1, 1, gen_random_uuid(), now())",
        )
        .bind(tenant)
        .bind(order)
        .execute(&shops.app.db)
        .await
        .unwrap();
    }
    let history = |id| format!("{}/history", path(id));
    for (session, id, status) in [
        (&shops.there[0], id, StatusCode::OK),
        (&shops.there[1], id, StatusCode::OK),
        (&shops.here[0], id, StatusCode::NOT_FOUND),
        (&shops.here[1], id, StatusCode::NOT_FOUND),
        (&shops.here[0], id + 1, StatusCode::OK),
        (&shops.there[0], id + 1, StatusCode::NOT_FOUND),
        (&shops.there[1], id + 1, StatusCode::NOT_FOUND),
    ] {
        let answer = session.get(&history(id)).await.expect(status);
        if status == StatusCode::OK {
            assert_eq!(answer.json["entries"].as_array().unwrap().len(), 1);
        }
        session
            .send(Method::GET, &history(id), &[("if-none-match", "*")], None)
            .await
            .expect(if status == StatusCode::OK { StatusCode::NOT_MODIFIED } else { status });
    }
}

/// No such history can come about; what a statement reads is asked for all the same. It belongs to the tenant of the first version.
#[tokio::test]
async fn of_versions_that_are_recorded_for_two_tenants_none_is_shown_to_the_other() {
    let shops = TwoShops::open().await;
    for (tenant, version) in [(shops.tenant, 1), (1, 2), (shops.tenant, 3)] {
        sqlx::query(
            "INSERT INTO order_history
                 (tenant_id, order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
             VALUES ($1, 1, $2, 'UPDATED', '{}', 1, 1, gen_random_uuid(), now())",
        )
        .bind(tenant)
        .bind(version)
        .execute(&shops.app.db)
        .await
        .unwrap();
    }
    let history = shops.there[0].get(&format!("{}/history", path(1))).await.expect(StatusCode::OK).json;
    let shown: Vec<_> =
        history["entries"].as_array().unwrap().iter().map(|entry| &entry["version"]).collect();
    assert_eq!(shown, [1, 3]);
    let other = shops.here[0].get(&format!("{}/history", path(1))).await;
    other.expect_problem(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn lists_totals_and_exports_are_those_of_one_tenant() {
    let shops = TwoShops::open().await;
    let mut placed = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        placed[0].push(shops.here[0].place(&order()).await);
        placed[1].push(shops.there[0].place(&order()).await);
    }
    placed[1].push(shops.there[0].place(&order()).await);
    for (sessions, placed) in [(&shops.here, &placed[0]), (&shops.there, &placed[1])] {
        let newest_first: Vec<i64> = placed.iter().rev().copied().collect();
        for session in sessions {
            for query in [
                "",
                "status=PENDING",
                "product_id=1001",
                "product_id=1002&status=PENDING",
                "customer_id=1",
                "min_total=66&max_total=66",
                "order_date_from=2025-01-20",
                "order_date_to=2025-01-20&product_id=1001&customer_id=1",
            ] {
                let list = session.get(&format!("/api/v1/orders?size=50&{query}")).await;
                assert_eq!(ids(&list), newest_first, "{query}");
                assert_eq!(list.json["total"], newest_first.len(), "{query}");
                let empty = session.get(&format!("/api/v1/orders?page=5&size=2&{query}")).await;
                assert_eq!(empty.json["total"], newest_first.len(), "{query}");
                let export = session.get(&format!("{EXPORT}?{query}")).await.expect(StatusCode::OK);
                let lines = json_lines(&export.bytes);
                let exported: Vec<i64> = lines.iter().filter_map(|line| line["id"].as_i64()).collect();
                assert_eq!(exported, newest_first, "{query}");
            }
        }
    }
    // Ids of the other tenant among one's own.
    let both: Vec<String> = placed.iter().flatten().map(ToString::to_string).collect();
    let list = shops.here[1].get(&format!("/api/v1/orders?ids={}", both.join(","))).await;
    assert_eq!(ids(&list), placed[0].iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(list.json["total"], 3);
}

#[tokio::test]
async fn a_cursor_of_another_tenant_is_refused() {
    let shops = TwoShops::open().await;
    for _ in 0..3 {
        shops.here[0].place(&order()).await;
        shops.there[0].place(&order()).await;
    }
    let cursor = async |session: &Session| {
        let page = session.get("/api/v1/orders?size=1").await.expect(StatusCode::OK);
        page.json["next_cursor"].as_str().expect("a cursor").to_owned()
    };
    for (own, other) in [(&shops.here, &shops.there), (&shops.there, &shops.here)] {
        for (own, other) in own.iter().zip(other) {
            let next = |cursor: &str| format!("/api/v1/orders?size=1&cursor={cursor}");
            own.get(&next(&cursor(own).await)).await.expect(StatusCode::OK);
            let refused = other.get(&next(&cursor(own).await)).await;
            let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
            assert_eq!(refused.faults(), ["?cursor invalid_value"]);
            let place = own.page("after=start&limit=1").await["next"].as_str().expect("a cursor").to_owned();
            own.page(&format!("after={place}")).await;
            let refused = other.events(&format!("after={place}")).await;
            refused.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
        }
    }
}

#[tokio::test]
async fn a_key_belongs_to_the_customer_of_one_tenant() {
    let shops = TwoShops::open().await;
    let (here, there) = (&shops.here[0], &shops.there[0]);
    let headers = [("idempotency-key", "k")];
    let mut other = order();
    other["order_date"] = json!("2025-01-21");
    let post = async |session: &Session, body: &Value| {
        session.send(Method::POST, "/api/v1/orders", &headers, Some(body)).await
    };
    let first = post(here, &order()).await.expect(StatusCode::CREATED);
    // Neither repeated to another tenant, nor in its way.
    let second = post(there, &other).await.expect(StatusCode::CREATED);
    assert_eq!(second.header("idempotent-replayed"), None);
    assert_ne!(first.json["id"], second.json["id"]);
    for (session, body, answer) in [(here, &order(), &first), (there, &other, &second)] {
        let again = post(session, body).await.expect(StatusCode::CREATED);
        assert_eq!((again.header("idempotent-replayed"), &again.bytes), (Some("true"), &answer.bytes));
    }
    post(there, &order()).await.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");

    // Rows of imports and of batches, and changes.
    for session in [here, there] {
        let imported = session.import(NDJSON, Some("file"), ndjson_file(1, 3)).await;
        assert_eq!((imported.statuses(), &imported.end["replayed"]), (vec![201; 3], &json!(0)));
        let body = json!({"orders": [order(), order()], "on_error": "skip"});
        let headers = [("idempotency-key", "rows")];
        let batch = session.send(Method::POST, "/api/v1/orders/batch", &headers, Some(&body)).await;
        assert_eq!(batch.expect(StatusCode::OK).json["results"][0].get("replayed"), None);
        let body = json!({"orders": [order()], "on_error": "abort"});
        let headers = [("idempotency-key", "all")];
        let batch = session.send(Method::POST, "/api/v1/orders/batch", &headers, Some(&body)).await;
        assert_eq!(batch.expect(StatusCode::OK).header("idempotent-replayed"), None);
    }
    let id = second.json["id"].as_i64().unwrap();
    let headers = [("idempotency-key", "change")];
    let body = json!({"status": "CONFIRMED"});
    let put = async |session: &Session| session.send(Method::PUT, &path(id), &headers, Some(&body)).await;
    put(here).await.expect(StatusCode::NOT_FOUND);
    let changed = put(there).await.expect(StatusCode::OK);
    assert_eq!((changed.header("idempotent-replayed"), &changed.json["version"]), (None, &json!(2)));
    put(here).await.expect(StatusCode::NOT_FOUND);

    let keys: Vec<(i64, String)> =
        sqlx::query_as("SELECT customer_id, key FROM idempotency_keys WHERE key LIKE '%k' ORDER BY key")
            .fetch_all(&shops.app.db)
            .await
            .unwrap();
    assert_eq!(keys, [(1, format!("{} k", shops.tenant)), (1, "k".to_owned())]);
}

#[tokio::test]
async fn a_reference_is_unique_within_the_customer_of_one_tenant() {
    let shops = TwoShops::open().await;
    let mut body = order();
    body["reference"] = json!("PO-1");
    let here = shops.here[0].place(&body).await;
    let there = shops.there[0].place(&body).await;
    for (session, id) in [(&shops.here[0], here), (&shops.there[0], there)] {
        let taken = session.post("/api/v1/orders", &body).await;
        let taken = taken.expect_problem(StatusCode::CONFLICT, "reference_taken");
        assert_eq!(taken.json["order_id"], id);
        assert_eq!(ids(&session.get("/api/v1/orders?reference=PO-1").await), [id]);
        let other = session.place(&order()).await;
        let taken = session.put(&path(other), &json!({"reference": "PO-1"})).await;
        assert_eq!(taken.expect_problem(StatusCode::CONFLICT, "reference_taken").json["order_id"], id);
    }
    // At once, in one commit.
    let start = Arc::new(Barrier::new(20));
    body["reference"] = json!("PO-2");
    let placed = join_all((0..20).map(|place| {
        let (start, body) = (Arc::clone(&start), body.clone());
        let session = if place % 2 == 0 { &shops.here[0] } else { &shops.there[0] };
        async move {
            start.wait().await;
            (place % 2, session.post("/api/v1/orders", &body).await)
        }
    }))
    .await;
    for shop in 0..2 {
        let answers: Vec<_> = placed.iter().filter(|(of, _)| *of == shop).map(|(_, answer)| answer).collect();
        let created =
            answers.iter().find(|answer| answer.status == StatusCode::CREATED).expect("one is placed");
        let refused = answers.iter().filter(|answer| answer.status == StatusCode::CONFLICT);
        let named: Vec<_> = refused.map(|answer| &answer.json["order_id"]).collect();
        assert_eq!(named, vec![&created.json["id"]; 9]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_two_tenants_in_one_batch_reach_only_the_orders_of_their_own() {
    let shops = TwoShops::open().await;
    let mut orders = Vec::new();
    for _ in 0..10 {
        orders.push(shops.there[0].place(&order()).await);
    }
    for (status, next) in [("CONFIRMED", 2), ("SHIPPED", 3)] {
        let start = Arc::new(Barrier::new(20));
        let changes = orders.iter().flat_map(|id| [(id, &shops.here[1]), (id, &shops.there[0])]).map(
            |(id, session)| {
                let start = Arc::clone(&start);
                async move {
                    start.wait().await;
                    session.patch(&path(*id), &json!({"status": status})).await
                }
            },
        );
        for (place, answer) in join_all(changes).await.into_iter().enumerate() {
            if place % 2 == 0 {
                answer.expect_problem(StatusCode::NOT_FOUND, "not_found");
            } else {
                assert_eq!(answer.expect(StatusCode::OK).json["version"], next);
            }
        }
    }
}
