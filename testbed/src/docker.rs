//! The servers as Docker containers, if `TESTBED=docker` asks for them.

use std::time::Duration;

use anyhow::Context;
use testcontainers::core::{ContainerPort, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

use crate::watchdog;

/// Images may have to be fetched first.
const START_TIMEOUT: Duration = Duration::from_mins(10);

/// A running container. It is removed with this value, or by the watchdog; a named volume keeps its data.
#[derive(Debug)]
pub struct Container {
    url: String,
    second_url: Option<String>,
    inner: ContainerAsync<GenericImage>,
}

impl Container {
    /// What clients connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// RabbitMQ's management API.
    pub fn second_url(&self) -> Option<&str> {
        self.second_url.as_deref()
    }

    /// Stops and removes it.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.inner.stop().await?;
        Ok(self.inner.rm().await?)
    }
}

/// Whether the environment asks for containers.
pub fn is_wanted() -> bool {
    crate::setting("TESTBED").is_some_and(|value| value == "docker")
}

/// PostgreSQL with a database `orders`, whose data is kept if a volume is named.
pub async fn postgres(volume: Option<&str>) -> anyhow::Result<Container> {
    let image = GenericImage::new("postgres", "17-alpine")
        // Once by the server that sets the database up, which takes no connections, and once for good.
        .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
        .with_env_var("POSTGRES_USER", "orders")
        .with_env_var("POSTGRES_PASSWORD", "orders");
    let image = match volume {
        Some(volume) => image.with_mount(Mount::volume_mount(volume, "/var/lib/postgresql/data")),
        None => image.with_cmd(["-c", "fsync=off", "-c", "max_connections=400"]),
    };
    let container = start("PostgreSQL", image, &[5432]).await?;
    let port = port(&container, 5432).await?;
    let url = format!("postgres://orders:orders@{port}/orders");
    Ok(Container { url, second_url: None, inner: container })
}

/// Redis, whose data is kept if a volume is named.
pub async fn redis(volume: Option<&str>) -> anyhow::Result<Container> {
    let append_only = if volume.is_some() { "yes" } else { "no" };
    let image = GenericImage::new("redis", "7-alpine")
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
        .with_cmd([
            "redis-server",
            "--databases",
            "4096",
            "--maxmemory-policy",
            "volatile-ttl",
            "--save",
            "",
            "--appendonly",
            append_only,
        ]);
    let image = match volume {
        Some(volume) => image.with_mount(Mount::volume_mount(volume, "/data")),
        None => image,
    };
    let container = start("Redis", image, &[6379]).await?;
    let port = port(&container, 6379).await?;
    Ok(Container { url: format!("redis://{port}/0"), second_url: None, inner: container })
}

/// RabbitMQ with its management API.
pub async fn rabbitmq() -> anyhow::Result<Container> {
    let image = GenericImage::new("rabbitmq", "3.13-management-alpine")
        .with_wait_for(WaitFor::message_on_stdout("Server startup complete"));
    let container = start("RabbitMQ", image.into(), &[5672, 15672]).await?;
    let (amqp, management) = (port(&container, 5672).await?, port(&container, 15672).await?);
    Ok(Container {
        url: format!("amqp://guest:guest@{amqp}/%2f"),
        second_url: Some(format!("http://guest:guest@{management}")),
        inner: container,
    })
}

/// LocalStack's SQS.
pub async fn localstack() -> anyhow::Result<Container> {
    // The release that `localstack/requirements.txt` pins too: later ones want an account.
    let image = GenericImage::new("localstack/localstack", "4.9.2")
        .with_wait_for(WaitFor::message_on_stdout("Ready."))
        .with_env_var("SERVICES", "sqs")
        .with_env_var("DISABLE_EVENTS", "1");
    let container = start("LocalStack", image, &[4566]).await?;
    let port = port(&container, 4566).await?;
    Ok(Container { url: format!("http://{port}"), second_url: None, inner: container })
}

/// Starts it, with these of its ports published on free ports of loopback; Docker's default is every address.
async fn start(
    title: &str,
    image: ContainerRequest<GenericImage>,
    ports: &[u16],
) -> anyhow::Result<ContainerAsync<GenericImage>> {
    let image = ports.iter().fold(image, |image, port| image.with_mapped_port(0, ContainerPort::Tcp(*port)));
    let image = image.with_host_config_modifier(|config| {
        for binding in
            config.port_bindings.iter_mut().flat_map(|ports| ports.values_mut()).flatten().flatten()
        {
            binding.host_ip = Some("127.0.0.1".to_owned());
        }
    });
    let container = image.with_startup_timeout(START_TIMEOUT).start().await.with_context(|| {
        format!("{title} could not be started as a container: TESTBED=docker needs a Docker daemon that runs")
    })?;
    watchdog::remove_container_at_end(container.id())?;
    Ok(container)
}

async fn port(container: &ContainerAsync<GenericImage>, inside: u16) -> anyhow::Result<String> {
    let host = container.get_host().await.context("Docker's host is unknown")?;
    let port = container.get_host_port_ipv4(inside).await.context("Docker has published no port")?;
    Ok(format!("{host}:{port}"))
}
