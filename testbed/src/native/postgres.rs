//! PostgreSQL as a child process.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::geteuid;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Probe, Server, Storage, start_on_a_free_port};
use crate::install::Package;
use crate::paths;
use crate::process::{Launch, Stop, User};

/// The package of the server.
pub const PACKAGE: Package = Package {
    title: "PostgreSQL",
    binary: "postgres",
    folders: &[
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql@18/bin",
        "/opt/homebrew/opt/postgresql@17/bin",
        "/opt/homebrew/opt/postgresql@16/bin",
        "/usr/local/opt/postgresql@17/bin",
        "/usr/local/opt/postgresql@16/bin",
    ],
    least: 15,
    apt: "postgresql",
    brew: "postgresql@17",
    variable: "DATABASE_URL",
};

/// Superuser, password and database. The server listens on loopback only.
const NAME: &str = "orders";

/// For temporary data: nothing is forced to the disk. A commit is written all the same before it is answered, so that a server that is
/// killed, or stopped at once, has lost none when it starts again.
const FAST: &[&str] = &["fsync=off", "full_page_writes=off", "max_connections=400"];
/// For data that is kept: the defaults of the server, which survive a power cut.
const SAFE: &[&str] = &["max_connections=200"];

/// Starts a PostgreSQL server with an empty database `orders`, or with the data of its last start.
pub async fn postgres(storage: &Storage) -> anyhow::Result<Server> {
    let binary = PACKAGE.binary().await?;
    let folder = storage.folder("postgres")?;
    let user = user()?;
    let data = data_folder(&folder, user)?;
    let log = folder.join("log");
    if !data.join("PG_VERSION").is_file() {
        initialise(&binary.with_file_name("initdb"), &data, &log, user, storage).await?;
    }

    let server = serve(&binary, &folder, &data, &log, user, storage).await?;
    create_database(&server).await?;
    Ok(server)
}

/// Starts a standby in a temporary folder: a copy of the server at this address, which follows it and is read-only until it is promoted.
/// It listens on `port` if that is given and free.
pub async fn postgres_standby(primary: &str, port: Option<u16>) -> anyhow::Result<Server> {
    let storage = Storage::Throwaway;
    let binary = PACKAGE.binary().await?;
    let folder = storage.folder("postgres")?;
    if let Some(port) = port {
        fs::write(folder.join("port"), port.to_string())?;
    }
    let user = user()?;
    let (data, log) = (data_folder(&folder, user)?, folder.join("log"));
    make_folder(&data, user)?;
    let copy = Launch::new(binary.with_file_name("pg_basebackup"), &log)
        .args([
            "-d",
            primary,
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
        ])
        .arg("-D")
        .arg(&data)
        .user(user);
    copy.run().await.context("PostgreSQL's data could not be copied for a standby")?;
    serve(&binary, &folder, &data, &log, user, &storage).await
}

async fn serve(
    binary: &Path,
    folder: &Path,
    data: &Path,
    log: &Path,
    user: Option<User>,
    storage: &Storage,
) -> anyhow::Result<Server> {
    let settings = if storage.is_kept() { SAFE } else { FAST };
    let stop = if storage.is_kept() { Stop::Int } else { Stop::Quit };
    start_on_a_free_port(folder, |port| Server {
        title: "PostgreSQL",
        launch: Launch::new(binary, log)
            .arg("-D")
            .arg(data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-c", "unix_socket_directories="])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .user(user)
            .stop(stop),
        url: url(port, NAME),
        probe: Probe::Postgres(url(port, "postgres")),
        patience: Duration::from_mins(1),
        process: None.into(),
    })
    .await
}

/// An empty folder that only the server's user can read.
fn make_folder(folder: &Path, user: Option<User>) -> anyhow::Result<()> {
    fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    if let Some(User { uid, gid }) = user {
        chown(folder, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://{NAME}:{NAME}@127.0.0.1:{port}/{database}")
}

/// PostgreSQL refuses to run as root: as which user it runs then.
pub(super) fn user() -> anyhow::Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let find = |name: &str| {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect())
            .find(|fields: &Vec<&str>| fields[0] == name)?;
        Some(User { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    };
    let found = find("postgres").or_else(|| find("nobody"));
    Ok(Some(
        found
            .context("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")?,
    ))
}

/// The folder for the data: inside `folder` where its user can get there, else in `/var/lib`, with a link to it.
fn data_folder(folder: &Path, user: Option<User>) -> anyhow::Result<PathBuf> {
    let data = folder.join("data");
    if data.exists() || user.is_none() || paths::reachable_by_all(folder) {
        return Ok(data.canonicalize().unwrap_or(data));
    }
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    let elsewhere = PathBuf::from(format!("/var/lib/orders-{:016x}", hasher.finish()));
    fs::create_dir_all(&elsewhere).with_context(|| format!("cannot create {}", elsewhere.display()))?;
    let elsewhere = elsewhere.join("data");
    // Whatever is left of an earlier time: a link whose folder is gone, or a folder whose link went with `.data`.
    let _absent = (fs::remove_file(&data), fs::remove_dir_all(&elsewhere));
    symlink(&elsewhere, &data).with_context(|| format!("cannot create {}", data.display()))?;
    println!(
        "  only root can reach {}: PostgreSQL keeps its data in {}",
        folder.display(),
        elsewhere.display()
    );
    Ok(elsewhere)
}

/// Makes a data folder. Under another name until it is complete, so that one that was interrupted is made again.
async fn initialise(
    initdb: &Path,
    data: &Path,
    log: &Path,
    user: Option<User>,
    storage: &Storage,
) -> anyhow::Result<()> {
    let draft = data.with_extension("draft");
    let password = data.with_extension("password");
    // Left over where an earlier start was killed.
    let _absent = fs::remove_dir_all(&draft);
    make_folder(&draft, user)?;
    fs::write(&password, NAME)?;
    if let Some(User { uid, gid }) = user {
        chown(&password, Some(uid), Some(gid))?;
    }
    let launch = Launch::new(initdb, log)
        .arg("-D")
        .arg(&draft)
        .arg("--pwfile")
        .arg(&password)
        .args(["--username", NAME, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"])
        .args((!storage.is_kept()).then_some("--no-sync"))
        .env("LC_ALL", "C")
        .user(user);
    launch.run().await.context("PostgreSQL could not make its data folder")?;
    fs::remove_file(&password)?;
    fs::rename(&draft, data).with_context(|| format!("cannot create {}", data.display()))
}

async fn create_database(server: &Server) -> anyhow::Result<()> {
    let Probe::Postgres(admin) = &server.probe else { return Ok(()) };
    let mut admin = PgConnection::connect(admin).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(NAME)
        .fetch_one(&mut admin)
        .await?;
    if !exists {
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {NAME}"))).execute(&mut admin).await?;
    }
    admin.close().await?;
    Ok(())
}
