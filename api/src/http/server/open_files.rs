//! Each connection is an open file, and the operating system limits open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to what `connections` and `others` need, if the hard limit allows it, and returns
/// how many connections fit.
pub fn fit_connections(connections: usize, others: usize) -> usize {
    let needed = connections.saturating_add(others);
    let open_files = raise_open_files(u64::try_from(needed).unwrap_or(u64::MAX));
    let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
    let fitting = connections.min(open_files.saturating_sub(others)).max(1);
    if fitting < connections {
        tracing::warn!(
            connections = fitting,
            open_files,
            needed,
            "the hard limit of open files leaves room for fewer connections"
        );
    } else {
        tracing::info!(
            connections = fitting,
            open_files,
            "the limit of open files leaves room for all connections"
        );
    }
    fitting
}

/// Returns the soft limit as it is afterwards.
fn raise_open_files(needed: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let soft = current.unwrap_or(u64::MAX);
    let reachable = maximum.map_or(needed, |maximum| maximum.min(needed));
    if reachable <= soft {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum }) {
        Ok(()) => reachable,
        Err(error) => {
            tracing::warn!(error = %error, "the limit of open files could not be raised");
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_fit_into_the_limit_of_open_files() {
        assert_eq!(fit_connections(16, 16), 16);
        let hard = getrlimit(Resource::Nofile).maximum.and_then(|hard| usize::try_from(hard).ok());
        if let Some(hard) = hard {
            assert_eq!(fit_connections(10, hard), 1, "nothing is left beside the others");
            assert!(fit_connections(hard, 100) <= hard - 100);
        }
    }
}
