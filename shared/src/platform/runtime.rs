//! The threads on which a program's tasks run.

use std::{io, thread};

use tokio::runtime::{Builder, Runtime};

use crate::platform::config::{ConfigError, Env};

/// The same variable as Tokio's own, which panics if the value is bad.
const THREADS: &str = "TOKIO_WORKER_THREADS";
/// No machine gains from more.
const MAX_THREADS: u64 = 1024;
/// A thread checks its sockets after this many polls of tasks. With Tokio's default of 61, the answer of PostgreSQL, and so
/// the writer's next batch, waits for as many requests.
const EVENT_INTERVAL: u32 = 16;

/// The number of threads in `TOKIO_WORKER_THREADS`. The default is Tokio's: the number of cores that this process may use.
pub fn threads(env: &Env) -> Result<usize, ConfigError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let default = u64::try_from(cores).unwrap_or(MAX_THREADS).min(MAX_THREADS);
    let threads = env.number_or(THREADS, default, 1..=MAX_THREADS)?;
    Ok(usize::try_from(threads).unwrap_or(usize::MAX))
}

/// A runtime with this many threads.
pub fn new(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).event_interval(EVENT_INTERVAL).enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_threads_as_cores_unless_the_variable_says_otherwise() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(threads(&Env::default()), Ok(cores));
        assert_eq!(threads(&Env::from_iter([(THREADS, "3")])), Ok(3));
    }

    #[test]
    fn a_bad_number_of_threads_is_refused_by_name() {
        for bad in ["0", "-1", "many", "1025"] {
            let error = threads(&Env::from_iter([(THREADS, bad)])).unwrap_err();
            assert!(error.to_string().starts_with("TOKIO_WORKER_THREADS: "), "{error}");
        }
    }
}
