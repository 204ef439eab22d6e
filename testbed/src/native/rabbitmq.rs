//! RabbitMQ as a child process, with the Erlang port mapper it needs as another one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::{Probe, Server, Storage, start_on_a_free_port};
use crate::install::Package;
use crate::process::Launch;

/// The package of the server.
pub const PACKAGE: Package = Package {
    title: "RabbitMQ",
    binary: "rabbitmq-server",
    // Debian's program of that name on the PATH is a wrapper that changes the user and the folders.
    folders: &["/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"],
    least: 0,
    apt: "rabbitmq-server",
    brew: "rabbitmq",
    variable: "AMQP_URL",
};

/// The user and password that every new RabbitMQ has; it is let in from loopback only.
const GUEST: &str = "guest:guest";

/// A running RabbitMQ.
#[derive(Debug)]
pub struct RabbitMq {
    broker: Server,
    mapper: Server,
    management_url: String,
}

impl RabbitMq {
    /// For `AMQP_URL`: the default virtual host.
    pub fn url(&self) -> &str {
        self.broker.url()
    }

    /// The management API, with user and password.
    pub fn management_url(&self) -> &str {
        &self.management_url
    }

    /// The broker alone, for tests that stop or kill it.
    pub fn broker(&self) -> &Server {
        &self.broker
    }

    /// Stops it in good order.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.broker.stop().await?;
        self.mapper.stop().await
    }
}

/// Starts a RabbitMQ with its management API, which takes some twelve seconds.
pub async fn rabbitmq(storage: &Storage) -> anyhow::Result<RabbitMq> {
    let binary = PACKAGE.binary().await?;
    let folder = storage.folder("rabbitmq")?;
    let mapper = start_on_a_free_port(&subfolder(&folder, "epmd")?, |port| mapper(&folder, port)).await?;
    let (_, mapper_port) = mapper.url().rsplit_once(':').context("the port mapper has no port")?;

    fs::write(folder.join("enabled_plugins"), "[rabbitmq_management].\n")?;
    let management = crate::free_port();
    fs::write(
        folder.join("rabbitmq.conf"),
        // Readable configuration: loopback only, and none of the limits that depend on the size of the machine.
        format!(
            "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             disk_free_limit.absolute = 50MB\nlog.console = true\nlog.console.level = warning\n"
        ),
    )?;
    let management_url = format!("http://{GUEST}@127.0.0.1:{management}");
    let broker = start_on_a_free_port(&folder, |port| Server {
        title: "RabbitMQ",
        launch: launch(&binary, &folder, mapper_port).env("RABBITMQ_NODE_PORT", port.to_string()),
        url: format!("amqp://{GUEST}@127.0.0.1:{port}/%2f"),
        // Answers once the broker is up and takes connections.
        probe: Probe::Http(format!("{management_url}/api/health/checks/port-listener/{port}")),
        patience: Duration::from_mins(2),
        process: None.into(),
    })
    .await?;
    Ok(RabbitMq { broker, mapper, management_url })
}

/// Our own, so that nothing depends on, or is left behind in, the one that the whole machine shares.
fn mapper(folder: &Path, port: u16) -> Server {
    let address = format!("127.0.0.1:{port}");
    Server {
        title: "epmd, the Erlang port mapper",
        launch: Launch::new("epmd", folder.join("epmd/log")).args([
            "-address",
            "127.0.0.1",
            "-port",
            &port.to_string(),
        ]),
        probe: Probe::Tcp(address.clone()),
        url: address,
        patience: Duration::from_secs(20),
        process: None.into(),
    }
}

fn launch(binary: &Path, folder: &Path, mapper_port: &str) -> Launch {
    Launch::new(binary, folder.join("log"))
        .folder(folder)
        // The folder is also where Erlang keeps its cookie.
        .env("HOME", folder)
        .env("ERL_EPMD_PORT", mapper_port)
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", "orders@localhost")
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_DIST_PORT", crate::free_port().to_string())
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder.join("logs"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        // The port on which Erlang's nodes talk to each other would be open to every network.
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        )
}

fn subfolder(folder: &Path, name: &str) -> anyhow::Result<std::path::PathBuf> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
