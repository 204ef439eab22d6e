//! PgBouncer as a child process, in front of a PostgreSQL server.

use std::fs;
use std::os::unix::fs::chown;
use std::time::Duration;

use anyhow::Context;

use super::{Probe, Server, Storage, postgres::user, start_on_a_free_port};
use crate::install::Package;
use crate::process::{Launch, User};

/// The package of the pooler.
pub const PACKAGE: Package = Package {
    title: "PgBouncer",
    binary: "pgbouncer",
    folders: &["/usr/sbin", "/opt/homebrew/bin", "/usr/local/bin"],
    least: 1,
    apt: "pgbouncer",
    brew: "pgbouncer",
    variable: "PATH",
};

/// Starts a PgBouncer whose pools work in this mode: `session`, `transaction` or `statement`. Everybody may connect to it, and it
/// connects to the server at `url` as the user named there.
pub async fn pgbouncer(url: &str, mode: &str) -> anyhow::Result<Server> {
    let binary = PACKAGE.binary().await?;
    let folder = Storage::Throwaway.folder("pgbouncer")?;
    let user = user()?;
    let (log, config) = (folder.join("log"), folder.join("pgbouncer.ini"));
    let (account, rest) = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .context("a PostgreSQL URL with a user")?;
    let (name, password) = account.split_once(':').unwrap_or((account, ""));
    let (server, database) = rest.split_once('/').context("a PostgreSQL URL with a database")?;
    let (host, server_port) = server.split_once(':').unwrap_or((server, "5432"));
    start_on_a_free_port(&folder, |port| {
        let text = format!(
            "[databases]\n* = host={host} port={server_port} user={name} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\nmax_client_conn = 500\ndefault_pool_size = 50\n"
        );
        // The start fails, and says why, if this does.
        let _written = fs::write(&config, text);
        if let Some(User { uid, gid }) = user {
            let _owned = chown(&config, Some(uid), Some(gid));
        }
        let url = format!("postgres://{account}@127.0.0.1:{port}/{database}");
        Server {
            title: "PgBouncer",
            launch: Launch::new(&binary, &log).arg(&config).user(user),
            url,
            probe: Probe::Tcp(format!("127.0.0.1:{port}")),
            patience: Duration::from_mins(1),
            process: None.into(),
        }
    })
    .await
}
