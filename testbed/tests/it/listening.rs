//! What the private servers open to the network.

use std::{collections::HashSet, fs, path::Path};

/// The ids of this process and of all that descend from it.
fn descendants() -> HashSet<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // The name before it, in parentheses, may hold anything.
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect();
    let mut found = HashSet::from([std::process::id()]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(id, parent)| found.contains(parent) && !found.contains(id))
            .map(|(id, _)| *id)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The inodes of the sockets that a process has open.
fn sockets(process: u32) -> Vec<String> {
    let Ok(open) = fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd")) else {
        return Vec::new();
    };
    open.filter_map(|file| {
        let target = fs::read_link(file.ok()?.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    })
    .collect()
}

/// The local addresses, as `/proc/net/tcp` writes them, at which one of these sockets listens.
fn listening(sockets: &HashSet<String>) -> Vec<String> {
    const LISTEN: &str = "0A";
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .flat_map(|table| {
            let text = fs::read_to_string(table).unwrap_or_default();
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
            (*state == LISTEN && sockets.contains(*inode)).then(|| (*address).to_owned())
        })
        .collect()
}

/// `127.0.0.1` or `::1`, whose bytes the kernel writes as words of this machine's order.
fn is_loopback(address: &str) -> bool {
    ["0100007F:", "00000000000000000000000001000000:", "0000000000000000FFFF00000100007F:"]
        .iter()
        .any(|loopback| address.starts_with(loopback))
}

#[tokio::test]
async fn private_servers_listen_on_loopback_only_with_every_port_that_they_open() {
    let (postgres, redis, rabbitmq) =
        tokio::join!(testbed::private_postgres(), testbed::private_redis(), testbed::private_rabbitmq());
    let sockets = descendants().into_iter().flat_map(sockets).collect();
    let addresses = listening(&sockets);
    // PostgreSQL, Redis; RabbitMQ's own, its management's, that of Erlang's distribution, and its port mapper's.
    assert!(addresses.len() >= 6, "not all servers were found: {addresses:?}");
    let open: Vec<_> = addresses.iter().filter(|address| !is_loopback(address)).collect();
    assert!(open.is_empty(), "open to the network: {open:?} of {addresses:?}");
    drop((postgres, redis, rabbitmq));
}
