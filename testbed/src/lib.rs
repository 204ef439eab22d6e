//! Real servers for tests and for `cargo xtask`: nothing in this workspace is tested against a mock of a server.
//!
//! For tests, each call gives something of the test's own, so that all tests run in parallel.

mod database;
mod eventually;
pub mod http;
pub mod install;
pub mod paths;
pub mod port;
pub mod process;
mod program;
mod proxy;
mod redis_db;
pub mod watchdog;

pub use database::{Database, empty_postgres, migrate, postgres};
pub use eventually::{Outcome, eventually, eventually_within};
pub use port::free_port;
pub use program::{Program, ProgramBuilder};
pub use proxy::Proxy;
pub use redis_db::{RedisDb, redis};

/// The value of a variable that `cargo xtask test` sets, or the one sentence that tells how to get it.
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
/// test's may be the one that drops the value; waited for, because the process of a test ends right after it.
fn clean_up(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(10), work).await? })
    });
    // What is left behind does no harm: the names are never used again.
    let _best_effort = worker.join();
}
