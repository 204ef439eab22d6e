//! Creating two-line orders.

use sqlx::PgPool;

use super::{Sample, alternate};
use crate::bench::Bench;
use crate::pgbench::Length;
use crate::programs::{self, Running};
use crate::report::{About, Outcome, Target, number};
use crate::servers::pool;
use crate::stats::float;
use crate::wrk::Requests;
use crate::{dataset, tokens};

pub(super) const ABOUT: About = About {
    case: "create",
    unit: "orders/s",
    target: Target::AtLeast(2.2),
    text: "POST /api/v1/orders with two lines over 64 connections, each with a token that is checked, by a thousand \
           customers. The answers come after the commit; the relay publishes beside. The reference: pgbench writes the \
           same rows into the same tables in the usual transaction of five statements, 16 clients, prepared.",
};

/// Customers who take turns.
const CUSTOMERS: i64 = 1000;
/// Clients of the reference.
const CLIENTS: u32 = 16;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("create: warming up".into());
    bench.servers.flush().await?;
    let system = bench.servers.database("creating").await?;
    let reference = bench.servers.database("creating_reference").await?;
    let db = pool(&system).await?;
    let api = programs::api(&bench.environment(&system), bench.servers.folder()).await?;
    let (requests, script) = (create_requests()?, script()?);
    let mut answered = create_orders(bench, &api, &requests, bench.plan.warm_up).await?.requests;
    bench.pgbench.run(&reference, &script, CLIENTS, Length::Seconds(bench.plan.warm_up)).await?;
    published(&db).await?;

    let (mut behind, mut costs) = (0, bench.servers.costs("API", &api));
    let rounds = alternate(
        bench,
        "create",
        bench.plan.rounds,
        async |_| {
            costs.begin();
            let run = create_orders(bench, &api, &requests, bench.plan.seconds).await?;
            answered += run.requests;
            behind = behind.max(unpublished(&db).await?);
            // The reference is not to share the machine with what is still to be published.
            published(&db).await?;
            costs.end(run.requests);
            recorded(&db).await?;
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
        async |_| {
            let length = Length::Seconds(bench.plan.seconds);
            let run = bench.pgbench.run(&reference, &script, CLIENTS, length).await?;
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
    )
    .await?;
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&db).await?;
    anyhow::ensure!(
        u64::try_from(stored)? >= answered,
        "{answered} orders were answered and {stored} are stored"
    );
    db.close().await;
    api.stop().await?;

    let mut notes =
        vec![format!("At most {} events waited to be published at the end of a run.", number(float(behind)))];
    notes.extend(costs.note("an order and its event"));
    let outcome = rounds.outcome(ABOUT, notes);
    bench.keep_create_rate(outcome.row.value);
    Ok(outcome)
}

/// Creates orders for so long.
pub(super) async fn create_orders(
    bench: &Bench,
    api: &Running,
    requests: &Requests,
    seconds: u32,
) -> anyhow::Result<crate::wrk::Run> {
    bench.wrk.run(&api.url, requests, seconds).await
}

/// A creation by each of the customers.
pub(super) fn create_requests() -> anyhow::Result<Requests> {
    let mut requests = Requests::default();
    for customer in 1..=CUSTOMERS {
        let token = requests.token(&tokens::access(customer)?);
        let body = crate::load::order(u32::try_from(customer)?, 2);
        requests.send("POST", "/api/v1/orders", token, &String::from_utf8_lossy(&body));
    }
    Ok(requests)
}

/// How many events the relay has yet to publish; estimated if they are many.
async fn unpublished(db: &PgPool) -> anyhow::Result<u64> {
    // Cheap however long the log has become, since this is asked while costs are counted.
    let count: i64 = sqlx::query_scalar("SELECT unpublished FROM log_backlog(10000)").fetch_one(db).await?;
    Ok(u64::try_from(count)?)
}

/// Waits until the relay has published everything.
pub(super) async fn published(db: &PgPool) -> anyhow::Result<()> {
    crate::wait::until("everything is published", async || Ok(unpublished(db).await? == 0)).await
}

/// Records the history, as a worker would have within a minute: otherwise the reconciler would publish again what was
/// created in the round before, and this would be measured instead.
pub(super) async fn recorded(db: &PgPool) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO order_history
             (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT order_id, version, CASE event_type WHEN 'OrderCreated' THEN 'CREATED' ELSE 'UPDATED' END,
                data -> 'changes', (data ->> 'customer_id')::bigint, (data ->> 'performed_by')::bigint, event_id, recorded_at
         FROM outbox, LATERAL (SELECT payload::json -> 'data' AS data) d WHERE NOT EXISTS
             (SELECT FROM order_history h WHERE h.order_id = outbox.order_id AND h.version = outbox.version)",
    )
    .execute(db)
    .await?;
    Ok(())
}

fn script() -> anyhow::Result<String> {
    let payload = crate::pgbench::literal(&dataset::created_event(4_242_424_242)?.to_envelope().body);
    Ok(format!(
        "\\set customer random(1, {CUSTOMERS})
         \\set product random(1, {CUSTOMERS})
         BEGIN;
         INSERT INTO orders (customer_id, order_date, status, total_amount, version, created_at, updated_at)
             VALUES (:customer, '2025-01-20', 'PENDING', 66.00, 1, now(), now()) RETURNING id \\gset
         INSERT INTO order_lines (order_id, position, product_id, quantity, unit_price)
             VALUES (:id, 0, 1001 + :product, 2, 25.50), (:id, 1, 2001 + :product, 1, 15.00);
         INSERT INTO outbox (event_id, event_type, order_id, version, payload)
             VALUES (gen_random_uuid(), 'OrderCreated', :id, 1, {payload});
         COMMIT;\n"
    ))
}
