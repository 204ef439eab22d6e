//! Changing the status of orders.

use super::create::{published, recorded};
use super::{Sample, alternate};
use crate::bench::Bench;
use crate::dataset::CUSTOMERS;
use crate::pgbench::Length;
use crate::report::{About, Outcome, Target};
use crate::servers::pool;
use crate::wrk::Requests;
use crate::{dataset, programs, tokens};

pub(super) const ABOUT: About = About {
    case: "update",
    unit: "updates/s",
    target: Target::AtLeast(1.4),
    text: "PUT /api/v1/orders/{id} with a new status over 64 connections, by the owners, on a million orders. The \
           reference: pgbench locks the order, updates it and appends its event in one transaction, 16 clients, prepared.",
};

/// Clients of the reference.
const CLIENTS: u32 = 16;
/// Enough for every update of a run, each order having three.
const ORDERS_A_SECOND: i64 = 7000;
/// Coprime with every number of orders here, so that its multiples visit each once.
const STRIDE: i64 = 611_953;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("update: warming up".into());
    bench.servers.flush().await?;
    let seeded = bench.seeded().await?;
    let plan = &bench.plan;
    let db = pool(&seeded.system).await?;
    let api = programs::api(&bench.environment(&seeded.system), bench.servers.folder()).await?;
    let script = script(plan.orders)?;
    let turns = i64::try_from(plan.rounds)? + 1;
    let share = (ORDERS_A_SECOND * i64::from(plan.seconds)).min(plan.orders / turns);
    let requests = |turn: usize| requests(i64::try_from(turn)? * share, share, plan.orders);

    let mut answered = bench.wrk.run(&api.url, &requests(plan.rounds)?, plan.warm_up).await?.requests;
    bench.pgbench.run(&seeded.reference, &script, CLIENTS, Length::Seconds(plan.warm_up)).await?;
    published(&db).await?;
    let mut costs = bench.servers.costs("API", &api);
    let rounds = alternate(
        bench,
        "update",
        plan.rounds,
        async |round| {
            let requests = requests(round)?;
            costs.begin();
            let run = bench.wrk.run(&api.url, &requests, plan.seconds).await?;
            answered += run.requests;
            published(&db).await?;
            costs.end(run.requests);
            recorded(&db).await?;
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
        async |_| {
            let length = Length::Seconds(plan.seconds);
            let run = bench.pgbench.run(&seeded.reference, &script, CLIENTS, length).await?;
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
    )
    .await?;
    let written: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&db).await?;
    anyhow::ensure!(
        u64::try_from(written)? >= answered,
        "{answered} updates were answered and {written} are stored"
    );
    db.close().await;
    api.stop().await?;
    let notes = costs.note("an update and its event").into_iter().collect();
    Ok(rounds.outcome(ABOUT, notes))
}

/// The way of `count` orders from the `first` on, spread over all of them: each is confirmed, then each shipped, then
/// each delivered, so that every request changes something.
fn requests(first: i64, count: i64, orders: i64) -> anyhow::Result<Requests> {
    let mut requests = Requests::default();
    let mut owned = Vec::new();
    for index in first..first + count {
        let id = 1 + index * STRIDE % orders;
        owned.push((id, requests.token(&tokens::access(1 + id % CUSTOMERS)?)));
    }
    for status in ["CONFIRMED", "SHIPPED", "DELIVERED"] {
        let body = format!(r#"{{"status":"{status}"}}"#);
        for (id, token) in &owned {
            requests.send("PUT", &format!("/api/v1/orders/{id}"), *token, &body);
        }
    }
    Ok(requests)
}

fn script(orders: i64) -> anyhow::Result<String> {
    let payload = crate::pgbench::literal(&dataset::updated_event(4_242_424_242)?.to_envelope().body);
    Ok(format!(
        "\\set id random(1, {orders})
         BEGIN;
         SELECT customer_id, order_date, status, total_amount, version, created_at FROM orders WHERE id = :id FOR UPDATE;
         UPDATE orders SET status = 'CONFIRMED', version = version + 1, updated_at = now() WHERE id = :id;
         INSERT INTO outbox (event_id, event_type, order_id, version, payload)
             VALUES (gen_random_uuid(), 'OrderUpdated', :id, 2, {payload});
         COMMIT;\n"
    ))
}
