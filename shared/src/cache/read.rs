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
    domain::order::OrderId,
    platform::redis::{Era, Redis},
};

impl Cache {
    /// The entries of several orders in the order of `ids`, in one round trip.
    pub async fn entries(&self, ids: &[OrderId]) -> Result<Vec<Option<CacheEntry>>, CacheError> {
        self.entries_of_each_server(ids).await.into_iter().collect()
    }

    /// [`Cache::entries`], where one server that does not answer says nothing about the entries of the others.
    pub(super) async fn entries_of_each_server(
        &self,
        ids: &[OrderId],
    ) -> Vec<Result<Option<CacheEntry>, CacheError>> {
        if ids.is_empty() {
            return Vec::new();
        }
        let groups = self.redis().group_by_server(ids, |id| entry::slot_key(*id));
        let asked = groups.iter().map(|(server, places)| async move {
            let ids = pick(ids, places);
            let answers = if server.is_cluster() {
                self.read_from_node(server, &ids).await
            } else {
                self.read_at_once(server, &ids).await
            };
            answers.unwrap_or_else(|error| ids.iter().map(|_| Err(error.clone())).collect())
        });
        let answers = join_all(asked).await;
        merge(&groups, answers)
    }

    async fn read_at_once(
        &self,
        server: &Redis,
        ids: &[&OrderId],
    ) -> Result<Vec<Result<Option<CacheEntry>, CacheError>>, CacheError> {
        let get = |era: Option<&Era>| {
            let mut command = Cmd::with_capacity(1 + ids.len(), 40 * (1 + ids.len()));
            command.arg("MGET");
            for id in ids {
                command.arg(entry::entry_key(era, **id));
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
        ids: &[&OrderId],
    ) -> Result<Vec<Result<Option<CacheEntry>, CacheError>>, CacheError> {
        let get = |era: Option<&Era>| {
            let mut pipeline = Pipeline::with_capacity(ids.len());
            pipeline.ignore_errors();
            for id in ids {
                pipeline.cmd("GET").arg(entry::entry_key(era, **id));
            }
            pipeline
        };
        let answers = self.call(Call::Read, node.run_pipeline_each_in_era(get)).await?;
        let entries = ids.iter().zip(answers).map(|(id, answer)| async move {
            match answer {
                Value::ServerError(_) => self.read_alone(**id).await,
                answer => {
                    let raw = Option::<Bytes>::from_redis_value(answer).map_err(RedisError::from);
                    raw.map(|raw| raw.map(CacheEntry)).map_err(|error| CacheError::Redis(error.into()))
                }
            }
        });
        Ok(join_all(entries).await)
    }

    async fn read_alone(&self, id: OrderId) -> Result<Option<CacheEntry>, CacheError> {
        let get = |era: Option<&Era>| {
            let mut command = redis::cmd("GET");
            command.arg(entry::entry_key(era, id));
            command
        };
        let owner = self.at_order(id);
        let raw = self.call(Call::Read, owner.run_command_in_era::<Option<Bytes>>(get)).await?;
        Ok(raw.map(CacheEntry))
    }
}
