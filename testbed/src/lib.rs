//! Real servers for tests and for `cargo xtask`: nothing in this workspace is tested against a mock of a server.
//!
//! For tests, each call returns something of the test's own, so that all tests run in parallel:
//!
//! - [`postgres`], [`empty_postgres`]: a database; [`redis()`]: a logical database; [`rabbitmq()`]: a virtual host;
//!   [`sqs()`]: a namespace of queues. They live on the servers that `cargo xtask test` starts, or on those that
//!   `DATABASE_URL`, `REDIS_URL` and the `TESTBED_…` variables name.
//! - [`private_postgres`], [`private_pgbouncer`], [`private_redis`], [`private_rabbitmq`]: a server process of its own, for tests that stop, freeze or kill it.
//! - [`private_redis_sentinel`], [`private_redis_cluster`]: a [`RedisGroup`] of its own, whose servers replace each other.
//! - [`Proxy`]: a TCP proxy that cuts, freezes and delays; [`Program`]: a binary of this workspace as a process.
//! - [`eventually`]: waits for a condition with a bound, in place of a sleep.
//!
//! For `cargo xtask`, [`source`] takes the servers from the environment, as containers ([`docker`]) or as child
//! processes ([`native`]).

pub mod bad_urls;
mod database;
mod decoy;
pub mod docker;
mod eventually;
pub mod http;
pub mod install;
pub mod native;
pub mod paths;
pub mod port;
mod private;
pub mod process;
mod program;
mod proxy;
pub mod python;
mod rabbitmq;
mod redis_db;
mod redis_group;
pub mod source;
mod sqs;
pub mod watchdog;

pub use database::{Database, bare_database, empty_postgres, migrate, migrated_database, postgres};
pub use decoy::{DECOY_ORDERS, assert_without_decoy};
pub use eventually::{Outcome, eventually, eventually_within};
pub use port::free_port;
pub use private::{
    PrivatePgBouncer, PrivatePostgres, PrivateRabbitMq, PrivateRedis, private_durable_redis,
    private_pgbouncer, private_postgres, private_rabbitmq, private_redis,
};
pub use program::{Program, ProgramBuilder, threads_beside_servers};
pub use proxy::Proxy;
pub use rabbitmq::{Vhost, rabbitmq};
pub use redis_db::{RedisDb, connect_redis, redis};
pub use redis_group::{
    RedisGroup, connect_redis_masters, private_redis_cluster, private_redis_sentinel, redis_cluster,
    redis_sentinel,
};
pub use sqs::{SqsNamespace, create_queue, sqs};

/// The value of a variable that `cargo xtask test` sets, or a panic that says how to set it.
fn required(variable: &str) -> String {
    setting(variable).unwrap_or_else(|| {
        panic!("{variable} is not set: these tests need real servers, run them by `cargo xtask test`")
    })
}

/// A variable of the environment; an empty one counts as not set.
pub fn setting(variable: &str) -> Option<String> {
    std::env::var_os(variable)?.into_string().ok().filter(|value| !value.is_empty())
}

/// Runs the clean-up of a value that is dropped, best effort. On a thread with a runtime of its own, because the
/// test's can be the one that drops the value; waited for, because the process of a test ends right after it.
fn clean_up(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(10), work).await? })
    });
    // What is left behind does no harm: the names are never used again.
    let _best_effort = worker.join();
}
