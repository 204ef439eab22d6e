//! `reference`: the client's own number of an order, which one order of a customer has.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testbed::eventually;

use crate::{
    orders_support::{order, path, two_lines},
    support::{Answer, Session, TestApp, until_available},
};

const ORDERS: &str = "/api/v1/orders";

/// An order with a reference.
pub(crate) fn referenced(reference: &str) -> Value {
    json!({"order_date": "2025-01-20", "lines": two_lines(), "reference": reference})
}

/// Asserts that the reference is refused because this order has it.
#[track_caller]
fn expect_taken(answer: Answer, order_id: i64) {
    let refused = answer.expect_problem(StatusCode::CONFLICT, "reference_taken");
    assert_eq!(refused.json["order_id"], order_id, "{}", refused.json);
}

/// Asserts that one of the answers is a new order and that all others name it. Returns its id.
#[track_caller]
fn expect_one_winner(answers: Vec<Answer>) -> i64 {
    let created: Vec<i64> = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::CREATED)
        .filter_map(|answer| answer.json["id"].as_i64())
        .collect();
    let [winner] = created[..] else { panic!("{created:?}") };
    for answer in answers.into_iter().filter(|answer| answer.status != StatusCode::CREATED) {
        expect_taken(answer, winner);
    }
    winner
}

#[tokio::test]
async fn one_order_of_a_customer_has_a_reference() {
    let app = TestApp::start().await;
    let (one, other) = (app.login(1).await, app.login(2).await);
    let id = one.place(&referenced("PO 4711/α")).await;
    assert_eq!(one.get(&path(id)).await.json["reference"], "PO 4711/α");
    expect_taken(one.post(ORDERS, &referenced("PO 4711/α")).await, id);
    // Another spelling, another customer, and none at all.
    for body in [
        referenced("po 4711/α"),
        order(),
        json!({"reference": null, "order_date": "2025-01-20", "lines": two_lines()}),
    ] {
        one.place(&body).await;
    }
    other.place(&referenced("PO 4711/α")).await;
    assert_eq!(app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await, 5);
    assert_eq!(app.count("SELECT count(*) FROM outbox WHERE tenant_id = 1").await, 5);
    assert_eq!(
        app.count("SELECT count(*) FROM order_lines WHERE tenant_id = 1").await,
        10,
        "what is refused leaves nothing"
    );
}

#[tokio::test]
async fn a_reference_can_change_in_every_status_and_never_to_one_that_is_taken() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let taken = session.place(&referenced("taken")).await;
    for moves in [&[][..], &["CONFIRMED"], &["SHIPPED"], &["SHIPPED", "DELIVERED"], &["CANCELLED"]] {
        let id = session.place(&referenced("first")).await;
        for status in moves {
            session.patch(&path(id), &json!({"status": status})).await.expect(StatusCode::OK);
        }
        let before = session.get(&path(id)).await.json;
        expect_taken(session.patch(&path(id), &json!({"reference": "taken"})).await, taken);
        assert_eq!(session.get(&path(id)).await.json, before, "nothing has changed");
        assert_eq!(app.events(id).await.len(), moves.len() + 1);

        let changed = session.put(&path(id), &json!({"reference": "second"})).await.expect(StatusCode::OK);
        assert_eq!(
            (&changed.json["reference"], &changed.json["status"]),
            (&json!("second"), &before["status"])
        );
        let removed = session.patch(&path(id), &json!({"reference": null})).await.expect(StatusCode::OK);
        assert_eq!(removed.json["reference"], Value::Null);
        let again = session.patch(&path(id), &json!({"reference": null})).await.expect(StatusCode::OK);
        assert_eq!(again.json["version"], removed.json["version"]);
    }
}

#[tokio::test]
async fn a_deleted_order_frees_its_reference_and_so_does_one_that_gives_it_away() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let first = session.place(&referenced("A")).await;
    session.delete(&path(first)).await.expect(StatusCode::NO_CONTENT);
    let second = session.place(&referenced("A")).await;
    session.patch(&path(second), &json!({"reference": "B"})).await.expect(StatusCode::OK);
    let third = session.place(&referenced("A")).await;
    expect_taken(session.patch(&path(third), &json!({"reference": "B"})).await, second);
    session.patch(&path(second), &json!({"reference": null})).await.expect(StatusCode::OK);
    session.patch(&path(third), &json!({"reference": "B"})).await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_equal_references_at_once_one_wins_and_fails_no_other_order() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let here = app.login(1).await;
    let there = replica.session(&here);
    for round in 0..5 {
        let reference = format!("round {round}");
        let race = (0..100).map(|n| {
            let (session, reference) = (if n % 2 == 0 { &here } else { &there }, reference.clone());
            async move { session.post(ORDERS, &referenced(&reference)).await }
        });
        let neighbours = (0..40).map(|n| {
            let body = referenced(&format!("neighbour {round} {n}"));
            let session = if n % 2 == 0 { &here } else { &there };
            async move { session.post(ORDERS, &body).await.expect(StatusCode::CREATED) }
        });
        let (answers, _) = tokio::join!(join_all(race), join_all(neighbours));
        expect_one_winner(answers);
    }
    assert_eq!(app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await, 5 * 41);
    assert_eq!(app.count("SELECT count(*) FROM outbox WHERE tenant_id = 1").await, 5 * 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_orders_that_want_a_reference_at_once_one_gets_it() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let here = app.login(1).await;
    let there = replica.session(&here);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(here.place(&order()).await);
    }
    for round in 0..3 {
        let wanted = json!({"reference": format!("round {round}")});
        let creation = referenced(&format!("round {round}"));
        let sent = ids.iter().map(|id| {
            let (id, session, wanted) = (*id, if id % 2 == 0 { &here } else { &there }, &wanted);
            async move { (id, session.patch(&path(id), wanted).await) }
        });
        let (changed, created) = tokio::join!(join_all(sent), here.post(ORDERS, &creation));
        let mut winners: Vec<i64> =
            changed.iter().filter(|(_, answer)| answer.status == StatusCode::OK).map(|(id, _)| *id).collect();
        let is_created = created.status == StatusCode::CREATED;
        winners.extend(created.json["id"].as_i64());
        let [winner] = winners[..] else { panic!("{winners:?}") };
        let losers = changed.into_iter().map(|(_, answer)| answer).chain((!is_created).then_some(created));
        for loser in losers.filter(|answer| answer.status != StatusCode::OK) {
            expect_taken(loser, winner);
        }
        let shown = here.get(&format!("{ORDERS}?reference=round%20{round}")).await.json;
        assert_eq!((&shown["total"], &shown["orders"][0]["id"]), (&json!(1), &json!(winner)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_for_a_transaction_that_is_writing_its_reference() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let target = session.place(&order()).await;
    for commits in [true, false] {
        let reference = format!("commits {commits}");
        let mut other = app.db.begin().await.expect("a transaction");
        let other_id: i64 = sqlx::query_scalar(
            "INSERT INTO orders (customer_id, order_date, status, total_amount, version, created_at, updated_at, reference)
             VALUES (1, '2025-01-20', 'PENDING', 0, 1, now(), now(), $1) RETURNING id",
        )
        .bind(&reference)
        .fetch_one(&mut *other)
        .await
        .expect("an order");
        let (creation, change) = (referenced(&reference), json!({"reference": reference}));
        // No request waits for over two seconds; one that a busy machine makes wait longer is sent again.
        let post = async |body: &Value| until_available(async || session.post(ORDERS, body).await).await;
        let neighbour = order();
        let requests = async {
            let target = path(target);
            tokio::join!(
                post(&creation),
                until_available(async || session.patch(&target, &change).await),
                join_all((0..3).map(|_| post(&neighbour)))
            )
        };
        let decide = async {
            eventually("both wait for the reference", async || {
                app.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await >= 2
            })
            .await;
            if commits { other.commit().await } else { other.rollback().await }.expect("it ends");
        };
        let ((created, changed, neighbours), ()) = tokio::join!(requests, decide);
        for neighbour in neighbours {
            neighbour.expect(StatusCode::CREATED);
        }
        if commits {
            expect_taken(created, other_id);
            expect_taken(changed, other_id);
        } else {
            // One of the two has it.
            let statuses = [created.status, changed.status];
            assert!(statuses.contains(&StatusCode::CONFLICT), "{statuses:?}");
            assert!(statuses.iter().any(StatusCode::is_success), "{statuses:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_under_a_key_stays_what_it_was_and_a_success_does_not_become_one() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let post = async |key: &str| {
        session.send(Method::POST, ORDERS, &[("idempotency-key", key)], Some(&referenced("A"))).await
    };
    let placed = post("first").await.expect(StatusCode::CREATED);
    let id = placed.json["id"].as_i64().unwrap();
    let again = post("first").await.expect(StatusCode::CREATED);
    assert_eq!((&again.bytes, again.header("idempotent-replayed")), (&placed.bytes, Some("true")));

    let refused = post("second").await;
    let (bytes, target) = (refused.bytes.clone(), session.place(&order()).await);
    expect_taken(refused, id);
    let change = async || {
        let body = json!({"reference": "A"});
        session.send(Method::PATCH, &path(target), &[("idempotency-key", "third")], Some(&body)).await
    };
    expect_taken(change().await, id);
    session.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    let again = post("second").await.expect(StatusCode::CONFLICT);
    assert_eq!((&again.bytes, again.header("idempotent-replayed")), (&bytes, Some("true")));
    let again = change().await.expect(StatusCode::CONFLICT);
    assert_eq!((&again.json["order_id"], again.header("idempotent-replayed")), (&json!(id), Some("true")));
    // The key was used for something else.
    let other =
        session.send(Method::POST, ORDERS, &[("idempotency-key", "second")], Some(&referenced("B"))).await;
    other.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused");
    assert_eq!(post("fourth").await.expect(StatusCode::CREATED).json["reference"], "A");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_with_a_key_and_a_reference_at_once_get_the_same_order() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let here = app.login(1).await;
    let there = replica.session(&here);
    let sent = (0..60).map(|n| {
        let session: &Session = if n % 2 == 0 { &here } else { &there };
        async { session.post_with_key(ORDERS, "k", &referenced("A")).await }
    });
    let answers = join_all(sent).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.bytes), (StatusCode::CREATED, &answers[0].bytes));
    }
    assert_eq!(app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await, 1);
}

#[tokio::test]
async fn a_reference_is_visible_text_of_at_most_64_characters() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let longest = "\u{1f4e6}".repeat(64);
    for good in ["1", "a  b", "\"\\/'; --", "日本語", "=1+1", "{order:1}", &longest] {
        let placed = session.post(ORDERS, &referenced(good)).await.expect(StatusCode::CREATED);
        assert_eq!(placed.json["reference"], good);
    }
    let too_long = "\u{1f4e6}".repeat(65);
    for (bad, code) in [
        (json!(""), "invalid_length"),
        (json!(too_long), "invalid_length"),
        (json!(" a"), "invalid_value"),
        (json!("a\u{2003}"), "invalid_value"),
        (json!("a\0b"), "invalid_value"),
        (json!("a\tb"), "invalid_value"),
        (json!("a\u{9f}b"), "invalid_value"),
        (json!(1), "invalid_type"),
        (json!(["a"]), "invalid_type"),
    ] {
        let mut body = order();
        body["reference"] = bad.clone();
        for refused in
            [session.post(ORDERS, &body).await, session.patch(&path(id), &json!({"reference": bad})).await]
        {
            let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
            assert_eq!(refused.faults(), [format!("/reference {code}")]);
        }
    }
    let surrogate = session.request(Method::PATCH, &path(id)).header("content-type", "application/json");
    let refused = crate::support::answer(surrogate.body(r#"{"reference":"\ud800"}"#)).await;
    assert_eq!(refused.expect(StatusCode::UNPROCESSABLE_ENTITY).faults(), ["/reference invalid_value"]);
    assert_eq!(session.get(&path(id)).await.json["version"], 1);
}
