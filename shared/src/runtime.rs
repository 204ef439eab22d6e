//! The threads on which a program's tasks run.

use std::{io, thread};

use tokio::runtime::{Builder, Runtime};

use crate::config::{ConfigError, Env};

/// Named as Tokio names it, so that who knows Tokio knows it.
const THREADS: &str = "TOKIO_WORKER_THREADS";
/// More than any machine gains from.
const MOST: u64 = 1024;
/// After so many polls of tasks a thread looks at its sockets. Tokio's own 61 keep PostgreSQL's answer, and so the writer's
/// next batch, behind as many requests.
const POLLS: u32 = 16;

/// How many threads `TOKIO_WORKER_THREADS` says. The default is half of the cores that this process may use, and at least
/// one.
///
/// Half, because each of our programs keeps others as busy as itself: PostgreSQL, Redis, the kernel. Where they share a
/// machine, as many threads as cores only take turns with them and wake each other (docs/PERFORMANCE.md).
pub fn threads(env: &Env) -> Result<usize, ConfigError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = env.number_or(THREADS, half(cores), 1..=MOST)?;
    Ok(usize::try_from(threads).unwrap_or(usize::MAX))
}

/// A runtime with so many threads.
pub fn new(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).event_interval(POLLS).enable_all().build()
}

fn half(cores: usize) -> u64 {
    u64::try_from(cores / 2).unwrap_or(MOST).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_half_as_many_threads_as_cores_unless_it_is_said() {
        assert_eq!([1, 2, 3, 8, 4096].map(half), [1, 1, 1, 4, MOST]);
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
