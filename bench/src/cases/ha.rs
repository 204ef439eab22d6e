//! What Redis servers that replace each other cost: reads and events with sentinels and in a cluster, against a single Redis.

use testbed::RedisGroup;
use testbed::native::Storage;
use testbed::source::Failover;

use super::consume::consume_events;
use super::get::requests;
use super::{Sample, alternate};
use crate::bench::Bench;
use crate::programs::{self, Environment};
use crate::redis_target::RedisTarget;
use crate::report::{About, Outcome, Target};
use crate::servers::pool;
use crate::stats::latencies;

/// As many reads as of a single Redis, less what a check of the master and a second place for keys may cost.
const GET: Target = Target::AtLeast(0.85);
/// The stream lies on one node, beside which the replicas receive a copy of everything.
const CONSUME: Target = Target::AtLeast(0.6);

pub(super) const GET_SENTINEL: About = About {
    case: "get-sentinel",
    unit: "reads/s",
    target: GET,
    text: "The reads of `get` from a Redis master with two replicas and three sentinels. The reference: the same API on a \
           single Redis.",
};

pub(super) const GET_CLUSTER: About = About {
    case: "get-cluster",
    unit: "reads/s",
    target: GET,
    text: "The reads of `get` from a Redis Cluster of three masters with a replica each. The reference: the same API on a \
           single Redis.",
};

pub(super) const CONSUME_SENTINEL: About = About {
    case: "consume-sentinel",
    unit: "events/s",
    target: CONSUME,
    text: "The events of `consume` from a Redis master with two replicas and three sentinels. The reference: the same \
           worker on a single Redis.",
};

pub(super) const CONSUME_CLUSTER: About = About {
    case: "consume-cluster",
    unit: "events/s",
    target: CONSUME,
    text: "The events of `consume` from a Redis Cluster of three masters with a replica each. The reference: the same \
           worker on a single Redis.",
};

/// Reads cached orders by two APIs in turns.
pub(super) async fn measure_get(bench: &Bench, failover: Failover, about: About) -> anyhow::Result<Outcome> {
    bench.progress.step(format!("{}: warming up", about.case));
    bench.servers.flush().await?;
    let folder = bench.servers.folder();
    let group = start_group(bench, failover).await?;
    let seeded = bench.seeded().await?;
    let single = programs::api(&bench.environment(&seeded.system), folder).await?;
    let environment = Environment { redis_url: group.url().to_owned(), ..bench.environment(&seeded.system) };
    let grouped = programs::api(&environment, folder).await?;

    let requests = requests(bench.plan.cached)?;
    for url in [&single.url, &grouped.url] {
        bench.wrk.run(url, &requests, bench.plan.warm_up).await?;
    }
    let read = async |url: &str| {
        let run = bench.wrk.run(url, &requests, bench.plan.seconds).await?;
        Ok(Sample { rate: run.rate, latency: run.latency })
    };
    let (system, reference) = (async |_| read(&grouped.url).await, async |_| read(&single.url).await);
    let rounds = alternate(bench, about.case, bench.plan.rounds, system, reference).await?;
    grouped.stop().await?;
    single.stop().await?;
    group.stop().await?;
    Ok(rounds.outcome(about, Vec::new()))
}

/// Empties the stream by one worker on each Redis in turns.
pub(super) async fn measure_consume(
    bench: &Bench,
    failover: Failover,
    about: About,
) -> anyhow::Result<Outcome> {
    bench.progress.step(format!("{}: preparing", about.case));
    let group = start_group(bench, failover).await?;
    let database = bench.servers.database("consuming_ha").await?;
    let db = pool(&database).await?;
    let first = |round: usize| i64::try_from(round).map(|round| 1 + round * bench.plan.events);
    let consume = async |round, target: RedisTarget<'_>| {
        let (rate, _) = consume_events(bench, &database, &db, &target, first(round)?).await?;
        Ok(Sample { rate, latency: latencies() })
    };
    let system = async |round| consume(round, RedisTarget::Group(&group)).await;
    let reference = async |round| consume(round, RedisTarget::Single(&bench.servers)).await;
    let rounds = alternate(bench, about.case, bench.plan.long_rounds, system, reference).await?;
    db.close().await;
    group.stop().await?;
    Ok(rounds.outcome(about, Vec::new()))
}

/// With append-only files, as the single Redis has one.
async fn start_group(bench: &Bench, failover: Failover) -> anyhow::Result<RedisGroup> {
    let folder = bench.servers.folder();
    match failover {
        Failover::Sentinel => testbed::redis_sentinel(&Storage::Keep(folder.join("redis-sentinel"))).await,
        Failover::Cluster => testbed::redis_cluster(&Storage::Keep(folder.join("redis-cluster"))).await,
    }
}
