//! Reading entries: one request to each server, however many orders there are.

use bytes::Bytes;
use futures_util::future::join_all;
use redis::{Cmd, FromRedisValue as _, Pipeline, RedisError, Value};

use super::{
    breaker::Call,
    client::{Cache, merge, pick},
    entry::{self, CacheEntry},
    error::CacheError,
};
use crate::{
    domain::order::OrderKey,
    platform::redis::{Era, Redis},
};

impl Cache {
    /// The entries of several orders in the order of `orders`, in one round trip.
    pub async fn entries(&self, orders: &[OrderKey]) -> Result<Vec<Option<CacheEntry>>, CacheError> {
        self.entries_of_each_server(orders).await.into_iter().collect()
    }

    /// [`Cache::entries`], where one server that does not answer says nothing about the entries of the others.
    pub(super) async fn entries_of_each_server(
        &self,
        orders: &[OrderKey],
    ) -> Vec<Result<Option<CacheEntry>, CacheError>> {
        if orders.is_empty() {
            return Vec::new();
        }
        let groups = self.redis().group_by_server(orders, |order| entry::slot_key(*order));
        let asked = groups.iter().map(|(server, places)| async move {
            let orders = pick(orders, places);
            let answers = if server.is_cluster() {
                self.read_from_node(server, &orders).await
            } else {
                self.read_at_once(server, &orders).await
            };
            answers.unwrap_or_else(|error| orders.iter().map(|_| Err(error.clone())).collect())
        });
        let answers = join_all(asked).await;
        merge(&groups, answers)
    }

    async fn read_at_once(
        &self,
        server: &Redis,
        orders: &[&OrderKey],
    ) -> Result<Vec<Result<Option<CacheEntry>, CacheError>>, CacheError> {
        let get = |era: Option<&Era>| {
            let mut command = Cmd::with_capacity(1 + orders.len(), 40 * (1 + orders.len()));
            command.arg("MGET");
            for order in orders {
                command.arg(entry::entry_key(era, **order));
            }
            command
        };
        let raw = self.call(Call::Read, server.run_command_in_era::<Vec<Option<Bytes>>>(get)).await?;
        Ok(raw.into_iter().map(|raw| Ok(raw.map(CacheEntry))).collect())
    }

    /// Reads entries of different slots from the node that owns them. A slot that has moved meanwhile is followed.
    async fn read_from_node(
        &self,
        node: &Redis,
        orders: &[&OrderKey],
    ) -> Result<Vec<Result<Option<CacheEntry>, CacheError>>, CacheError> {
        let get = |era: Option<&Era>| {
            let mut pipeline = Pipeline::with_capacity(orders.len());
            pipeline.ignore_errors();
            for order in orders {
                pipeline.cmd("GET").arg(entry::entry_key(era, **order));
            }
            pipeline
        };
        let answers = self.call(Call::Read, node.run_pipeline_each_in_era(get)).await?;
        let entries = orders.iter().zip(answers).map(|(order, answer)| async move {
            match answer {
                Value::ServerError(_) => self.read_alone(**order).await,
                answer => {
                    let raw = Option::<Bytes>::from_redis_value(answer).map_err(RedisError::from);
                    raw.map(|raw| raw.map(CacheEntry)).map_err(|error| CacheError::Redis(error.into()))
                }
            }
        });
        Ok(join_all(entries).await)
    }

    async fn read_alone(&self, order: OrderKey) -> Result<Option<CacheEntry>, CacheError> {
        let get = |era: Option<&Era>| {
            let mut command = redis::cmd("GET");
            command.arg(entry::entry_key(era, order));
            command
        };
        let owner = self.at_order(order);
        let raw = self.call(Call::Read, owner.run_command_in_era::<Option<Bytes>>(get)).await?;
        Ok(raw.map(CacheEntry))
    }
}
