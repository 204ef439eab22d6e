//! Installs what commands need on this machine before anything is built, or lists everything that is missing.

use testbed::install::{CURL, CXX, NGINX, Need, PGBENCH, PSQL, WRK, provide};
use testbed::native::{PGBOUNCER, POSTGRES, RABBITMQ, REDIS};

use crate::bench::{BenchArgs, Choice, Place};
use crate::up::Events;

/// For the tests. Servers are needed even if others are given by their addresses: some tests start their own.
pub(crate) async fn install_for_tests(with_python: bool) -> anyhow::Result<()> {
    let programs =
        [&POSTGRES, &PGBOUNCER, &REDIS, &RABBITMQ, &CURL, &NGINX, &PGBENCH, &WRK].map(Need::Program);
    let python = with_python.then_some(Need::Python);
    provide(&programs.into_iter().chain(python).collect::<Vec<_>>()).await
}

/// For the cases of the bench, and for its comparison of brokers.
pub(crate) async fn install_for_bench(args: &BenchArgs) -> anyhow::Result<()> {
    let mut needs = [&POSTGRES, &REDIS, &PGBENCH, &PSQL, &WRK].map(Need::Program).to_vec();
    if args.cases.contains(&Choice::Scale) {
        needs.extend([Need::Program(&RABBITMQ), Need::Python]);
    }
    provide(&needs).await
}

/// For a load, which starts a system of its own unless the address of one is given.
pub(crate) async fn install_for_load(place: &Place) -> anyhow::Result<()> {
    if place.url.is_some() {
        return Ok(());
    }
    provide(&[&POSTGRES, &REDIS].map(Need::Program)).await
}

/// For an upgrade under load.
pub(crate) async fn install_for_upgrade(broker: Events) -> anyhow::Result<()> {
    let mut needs = [&POSTGRES, &REDIS].map(Need::Program).to_vec();
    match broker {
        Events::Local => {}
        Events::Rabbitmq => needs.push(Need::Program(&RABBITMQ)),
        Events::Sqs => needs.push(Need::Python),
    }
    provide(&needs).await
}

/// For the fuzz targets.
pub(crate) async fn install_for_fuzzing() -> anyhow::Result<()> {
    provide(&[Need::Program(&CXX)]).await
}
