//! The first page of a customer's list.

use super::{Sample, alternate};
use crate::bench::Bench;
use crate::dataset::CUSTOMERS;
use crate::pgbench::Length;
use crate::report::{About, Outcome, Target};
use crate::wrk::Requests;
use crate::{programs, tokens};

pub(super) const ABOUT: About = About {
    case: "list",
    unit: "pages/s",
    target: Target::AtLeast(0.6),
    text: "GET /api/v1/orders, the first page of ten with its total, over 64 connections, by ten thousand customers who \
           have a hundred orders each, a million together. The reference: pgbench running the same two queries, 16 \
           clients, prepared.",
};

/// Clients of the reference.
const CLIENTS: u32 = 16;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("list: warming up".into());
    bench.servers.flush().await?;
    let database = &bench.seeded().await?.system;
    let api = programs::api(&bench.environment(database), bench.servers.folder()).await?;
    let (requests, script) = (requests()?, script());
    bench.wrk.run(&api.url, &requests, bench.plan.warm_up).await?;
    bench.pgbench.run(database, &script, CLIENTS, Length::Seconds(bench.plan.warm_up)).await?;
    let rounds = alternate(
        bench,
        "list",
        bench.plan.rounds,
        async |_| {
            let run = bench.wrk.run(&api.url, &requests, bench.plan.seconds).await?;
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
        async |_| {
            let length = Length::Seconds(bench.plan.seconds);
            let run = bench.pgbench.run(database, &script, CLIENTS, length).await?;
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
    )
    .await?;
    api.stop().await?;
    Ok(rounds.outcome(ABOUT, Vec::new()))
}

/// A list by each customer, in no order that pages of the disk would know.
fn requests() -> anyhow::Result<Requests> {
    let mut requests = Requests::default();
    for index in 0..CUSTOMERS {
        let token = requests.token(&tokens::access(1 + index * 7919 % CUSTOMERS)?);
        requests.send("GET", "/api/v1/orders", token, "");
    }
    Ok(requests)
}

/// The queries of the API, with all columns of an order.
fn script() -> String {
    format!(
        "\\set customer random(1, {CUSTOMERS})
         SELECT o.*, l.*
         FROM (SELECT * FROM orders o WHERE o.tenant_id = 1 AND customer_id = :customer
               ORDER BY created_at DESC, id DESC LIMIT 11) AS o, LATERAL (
             SELECT array_agg(id) AS ids, array_agg(position) AS positions, array_agg(product_id) AS products,
                    array_agg(quantity) AS quantities, array_agg(unit_price) AS prices
             FROM order_lines WHERE order_id = o.id AND tenant_id = o.tenant_id
         ) AS l ORDER BY o.created_at DESC, o.id DESC;
         SELECT count(*) FROM (SELECT FROM orders o WHERE o.tenant_id = 1 AND customer_id = :customer
                               ORDER BY created_at DESC, id DESC LIMIT 10000) AS counted;\n"
    )
}
