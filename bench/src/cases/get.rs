//! Reading cached orders.

use anyhow::ensure;
use testbed::{free_port, http};

use super::{Sample, alternate};
use crate::bench::Bench;
use crate::dataset::CUSTOMERS;
use crate::report::{About, Outcome, Target};
use crate::wrk::Requests;
use crate::{bare, programs, tokens};

pub(super) const ABOUT: About = About {
    case: "get",
    unit: "reads/s",
    target: Target::AtLeast(0.5),
    text: "GET /api/v1/orders/{id} of ten thousand cached orders by their owners over 64 connections, each with a token \
           that is checked: one Redis round trip. The reference: a bare axum on the same machine that answers the same \
           bytes, headers and body, from its own memory and checks nothing.",
};

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Outcome> {
    bench.progress.step("get: warming up".into());
    bench.servers.flush().await?;
    let folder = bench.servers.folder();
    let seeded = bench.seeded().await?;
    let api = programs::api(&bench.environment(&seeded.system), folder).await?;

    let authorization = format!("Bearer {}", tokens::access(1 + 1 % CUSTOMERS)?);
    let one = http::request(
        "GET",
        &format!("{}/api/v1/orders/1", api.url),
        &[("Authorization", &authorization)],
        None,
    )
    .await?;
    ensure!(one.is_success(), "an order cannot be read: {} {}", one.status, one.body);
    let answer = folder.join("answer");
    std::fs::write(&answer, bare::recorded(&one))?;
    let port = free_port();
    let bare = programs::this(
        &["bare", "--port", &port.to_string(), "--answer", &answer.display().to_string()],
        port,
        folder,
    )
    .await?;

    let requests = requests(bench.plan.cached)?;
    bench.wrk.run(&api.url, &requests, bench.plan.warm_up).await?;
    bench.wrk.run(&bare.url, &requests, bench.plan.warm_up).await?;
    let mut costs = bench.servers.costs("API", &api);
    let rounds = alternate(
        bench,
        "get",
        bench.plan.rounds,
        async |_| {
            costs.begin();
            let run = bench.wrk.run(&api.url, &requests, bench.plan.seconds).await?;
            costs.end(run.requests);
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
        async |_| {
            let run = bench.wrk.run(&bare.url, &requests, bench.plan.seconds).await?;
            Ok(Sample { rate: run.rate, latency: run.latency })
        },
    )
    .await?;
    api.stop().await?;
    drop(bare);
    let notes = costs.note("a read").into_iter().collect();
    Ok(rounds.outcome(ABOUT, notes))
}

/// A read of each order by its owner.
pub(super) fn requests(orders: i64) -> anyhow::Result<Requests> {
    let mut requests = Requests::default();
    for id in 1..=orders {
        let token = requests.token(&tokens::access(1 + id % CUSTOMERS)?);
        requests.send("GET", &format!("/api/v1/orders/{id}"), token, "");
    }
    Ok(requests)
}
