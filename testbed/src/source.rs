//! Where a server comes from: its URL in the environment, a container, or a process of our own.

use std::path::PathBuf;

use anyhow::{anyhow, ensure};
use sqlx::Connection;

use crate::native::{RabbitMq, Server, Storage};
use crate::redis_group::{RedisGroup, redis_cluster, redis_sentinel};
use crate::{docker, native};

/// A server to work with.
#[derive(Debug)]
pub struct Service {
    url: String,
    management_url: Option<String>,
    how: How,
}

/// Who runs it.
#[derive(Debug)]
enum How {
    /// Somebody else: it is neither started nor stopped here.
    Given,
    Native(Box<Server>),
    RabbitMq(Box<RabbitMq>),
    RedisGroup(Box<RedisGroup>),
    Container(Box<docker::Container>),
}

impl Service {
    /// What clients connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// RabbitMQ's management API.
    pub fn management_url(&self) -> Option<&str> {
        self.management_url.as_deref()
    }

    /// In a word or two, who runs it.
    pub fn origin(&self) -> &'static str {
        match self.how {
            How::Given => "already running",
            How::Native(_) | How::RabbitMq(_) => "private process",
            How::RedisGroup(_) => "private processes",
            How::Container(_) => "container",
        }
    }

    /// Whether a process of our own has ended unasked; of a group, all of them.
    pub fn has_failed(&self) -> bool {
        match &self.how {
            How::Native(server) => server.ended().unwrap_or(true),
            How::RabbitMq(rabbitmq) => rabbitmq.broker().ended().unwrap_or(true),
            How::RedisGroup(group) => group.has_failed(),
            How::Given | How::Container(_) => false,
        }
    }

    /// Stops it in good order if it was started here.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.how {
            How::Given => Ok(()),
            How::Native(server) => server.stop().await,
            How::RabbitMq(rabbitmq) => rabbitmq.stop().await,
            How::RedisGroup(group) => group.stop().await,
            How::Container(container) => container.stop().await,
        }
    }

    /// Ends it at once if it was started here with temporary data.
    pub async fn discard(self) -> anyhow::Result<()> {
        match self.how {
            How::Container(container) => container.stop().await,
            // Processes are killed when they are dropped.
            How::Given | How::Native(_) | How::RabbitMq(_) | How::RedisGroup(_) => Ok(()),
        }
    }

    fn given(url: &str) -> Self {
        Self { url: url.to_owned(), management_url: None, how: How::Given }
    }
}

impl From<Server> for Service {
    fn from(server: Server) -> Self {
        Self { url: server.url().to_owned(), management_url: None, how: How::Native(Box::new(server)) }
    }
}

impl From<RabbitMq> for Service {
    fn from(rabbitmq: RabbitMq) -> Self {
        Self {
            url: rabbitmq.url().to_owned(),
            management_url: Some(rabbitmq.management_url().to_owned()),
            how: How::RabbitMq(Box::new(rabbitmq)),
        }
    }
}

impl From<RedisGroup> for Service {
    fn from(group: RedisGroup) -> Self {
        Self { url: group.url().to_owned(), management_url: None, how: How::RedisGroup(Box::new(group)) }
    }
}

impl From<docker::Container> for Service {
    fn from(container: docker::Container) -> Self {
        Self {
            url: container.url().to_owned(),
            management_url: container.second_url().map(str::to_owned),
            how: How::Container(Box::new(container)),
        }
    }
}

/// The PostgreSQL server at `given`, which must be 15 or newer, else one of our own.
pub async fn postgres(given: Option<&str>, storage: &Storage) -> anyhow::Result<Service> {
    if let Some(url) = given {
        // The error alone, without its sources, which say the same again.
        let mut connection = sqlx::PgConnection::connect(url).await.map_err(|error| {
            anyhow!("DATABASE_URL is set, but cannot be used ({error}): unset it to have a server started")
        })?;
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut connection)
            .await?;
        ensure!(
            version >= 150_000,
            "the server at DATABASE_URL is PostgreSQL {}, and 15 is needed",
            version / 10_000
        );
        return Ok(Service::given(url));
    }
    if docker::is_wanted() {
        return Ok(docker::postgres(volume(storage, "orders-postgres")).await?.into());
    }
    Ok(native::postgres(&part(storage, "postgres")).await?.into())
}

/// The Redis server at `given`, else one of our own.
pub async fn redis(given: Option<&str>, storage: &Storage) -> anyhow::Result<Service> {
    if let Some(url) = given {
        crate::connect_redis(url).await.map_err(|error| {
            anyhow!("REDIS_URL is set, but cannot be used ({error:#}): unset it to have a server started")
        })?;
        return Ok(Service::given(url));
    }
    if docker::is_wanted() {
        return Ok(docker::redis(volume(storage, "orders-redis")).await?.into());
    }
    Ok(native::redis(&part(storage, "redis")).await?.into())
}

/// How Redis survives the loss of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// Three sentinels promote a replica.
    Sentinel,
    /// The other masters of a cluster promote a replica.
    Cluster,
}

/// Redis servers of our own that replace each other: always processes, because their addresses must lead clients and each
/// other to the same place.
pub async fn redis_group(failover: Failover, storage: &Storage) -> anyhow::Result<Service> {
    let group = match failover {
        Failover::Sentinel => redis_sentinel(&part(storage, "redis-sentinel")).await?,
        Failover::Cluster => redis_cluster(&part(storage, "redis-cluster")).await?,
    };
    Ok(group.into())
}

/// The RabbitMQ server at `given`, with its management API, else one of our own.
pub async fn rabbitmq(given: Option<(&str, Option<&str>)>, storage: &Storage) -> anyhow::Result<Service> {
    if let Some((url, management)) = given {
        let management_url = management.map(str::to_owned);
        return Ok(Service { management_url, ..Service::given(url) });
    }
    if docker::is_wanted() {
        return Ok(docker::rabbitmq().await?.into());
    }
    Ok(native::rabbitmq(&part(storage, "rabbitmq")).await?.into())
}

/// The SQS endpoint at `given`, else a LocalStack of our own.
pub async fn sqs(given: Option<&str>, storage: &Storage) -> anyhow::Result<Service> {
    if let Some(url) = given {
        return Ok(Service::given(url));
    }
    if docker::is_wanted() {
        return Ok(docker::localstack().await?.into());
    }
    Ok(native::localstack(&part(storage, "localstack")).await?.into())
}

/// Each server in a folder of its own.
fn part(storage: &Storage, name: &str) -> Storage {
    match storage {
        Storage::Keep(folder) => Storage::Keep(PathBuf::from(folder).join(name)),
        Storage::Throwaway => Storage::Throwaway,
    }
}

fn volume(storage: &Storage, name: &'static str) -> Option<&'static str> {
    matches!(storage, Storage::Keep(_)).then_some(name)
}
