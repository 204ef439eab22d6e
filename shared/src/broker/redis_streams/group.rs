//! The consumer group: every command a consumer needs, each creating the group again if it is gone.

use std::{collections::HashSet, time::Duration};

use redis::{Cmd, FromRedisValue, Pipeline, RedisError, Script, Value};

use super::{
    CALL_TIMEOUT, RedisStreamsOptions, connection,
    entries::{self, StreamEntry},
};
use crate::{
    broker::{Backlog, BrokerError},
    platform::redis::{Redis, RedisFailure},
};

/// How many ids go into one command.
const CHUNK: usize = 1000;

/// One consumer's view of the group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) redis: Redis,
    stream: String,
    name: String,
    consumer: String,
    expiry: Duration,
    tidy: Script,
    backlog: Script,
}

impl Group {
    pub(super) fn new(options: &RedisStreamsOptions, consumer: String) -> Result<Self, BrokerError> {
        Ok(Self {
            redis: connection(options, "source")?,
            stream: options.stream.clone(),
            name: options.group.clone(),
            consumer,
            expiry: options.consumer_expiry,
            tidy: Script::new(include_str!("tidy.lua")),
            backlog: Script::new(include_str!("backlog.lua")),
        })
    }

    pub(super) fn consumer(&self) -> &str {
        &self.consumer
    }

    /// Creates the group at the beginning of the stream, unless it exists.
    pub(super) async fn ensure(&self) -> Result<(), RedisFailure> {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(&self.name).arg("0").arg("MKSTREAM");
        match self.redis.run_command::<()>(&create).await {
            Err(failure) if failure.has_code(&["BUSYGROUP"]) => Ok(()),
            done => done,
        }
    }

    /// `XREADGROUP` for up to `max` entries that no consumer has had yet; blocks if `block` is given.
    pub(super) fn read_new(&self, max: usize, block: Option<Duration>) -> Cmd {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.name).arg(&self.consumer).arg("COUNT").arg(max);
        if let Some(block) = block {
            // Zero would block for ever.
            read.arg("BLOCK").arg(block.as_millis().max(1).to_string());
        }
        read.arg("STREAMS").arg(&self.stream).arg(">");
        read
    }

    /// Takes over up to `max` entries that have been idle for `min_idle`, continuing from `cursor`.
    pub(super) async fn auto_claim(
        &self,
        min_idle: Duration,
        cursor: &str,
        max: usize,
    ) -> Result<(Option<String>, Vec<StreamEntry>), RedisFailure> {
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(&self.stream).arg(&self.name).arg(&self.consumer).arg(millis(min_idle)).arg(cursor);
        claim.arg("COUNT").arg(max);
        self.run_command(&claim).await.map(entries::from_auto_claim)
    }

    /// Claims these entries for their next attempt.
    pub(super) async fn claim(&self, ids: &[String]) -> Result<Vec<StreamEntry>, RedisFailure> {
        let mut claim = redis::cmd("XCLAIM");
        claim.arg(&self.stream).arg(&self.name).arg(&self.consumer).arg(0).arg(ids);
        self.run_command(&claim).await.map(entries::from_list)
    }

    /// For each entry its consumer and how often it was delivered, or `None` if it is no longer pending.
    pub(super) async fn pending(&self, ids: &[String]) -> Result<Vec<Option<(String, u32)>>, RedisFailure> {
        let mut pipe = Pipeline::with_capacity(ids.len());
        for id in ids {
            pipe.cmd("XPENDING").arg(&self.stream).arg(&self.name).arg(id).arg(id).arg(1);
        }
        Ok(self.run_pipeline(&mut pipe).await?.into_iter().map(entries::pending).collect())
    }

    /// Everything that is pending under this consumer's name.
    pub(super) async fn mine(&self) -> Result<HashSet<String>, RedisFailure> {
        let mut mine = HashSet::new();
        let mut from = "-".to_owned();
        loop {
            let mut pending = redis::cmd("XPENDING");
            pending.arg(&self.stream).arg(&self.name).arg(&from).arg("+").arg(CHUNK).arg(&self.consumer);
            let page = entries::pending_ids(self.run_command(&pending).await?);
            let Some(last) = page.last() else { return Ok(mine) };
            from = format!("({last}");
            mine.extend(page);
        }
    }

    /// The heartbeat: resets the idle time of these entries. Their delivery count stays as it is.
    pub(super) async fn reset_idle(&self, ids: &[String]) -> Result<(), RedisFailure> {
        for chunk in ids.chunks(CHUNK) {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(&self.stream).arg(&self.name).arg(&self.consumer).arg(0).arg(chunk).arg("JUSTID");
            self.run_command::<Value>(&claim).await?;
        }
        Ok(())
    }

    /// Makes each entry look as if it had been idle for the given time.
    pub(super) async fn set_idle(&self, idle: &[(String, Duration)]) -> Result<(), RedisFailure> {
        for chunk in idle.chunks(CHUNK) {
            let mut pipe = Pipeline::with_capacity(chunk.len());
            for (id, idle) in chunk {
                pipe.cmd("XCLAIM").arg(&self.stream).arg(&self.name).arg(&self.consumer).arg(0).arg(id);
                pipe.arg("IDLE").arg(millis(*idle)).arg("JUSTID");
            }
            self.run_pipeline(&mut pipe).await?;
        }
        Ok(())
    }

    /// The next entries of the stream from an id on, whoever has had them.
    pub(super) async fn range(&self, from: &str, most: usize) -> Result<Vec<StreamEntry>, RedisFailure> {
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.stream).arg(from).arg("+").arg("COUNT").arg(most);
        self.redis.run_command(&range).await.map(entries::from_list)
    }

    /// Removes entries from the stream, also those that are pending, and returns how many were there.
    pub(super) async fn delete(&self, ids: &[String]) -> Result<usize, RedisFailure> {
        let mut delete = redis::cmd("XDEL");
        delete.arg(&self.stream).arg(ids);
        self.redis.run_command(&delete).await
    }

    /// Acknowledges entries. One round trip.
    pub(super) async fn ack(&self, ids: &[String]) -> Result<(), RedisFailure> {
        let mut pipe = Pipeline::new();
        for chunk in ids.chunks(CHUNK) {
            pipe.cmd("XACK").arg(&self.stream).arg(&self.name).arg(chunk);
        }
        self.run_pipeline(&mut pipe).await.map(|_| ())
    }

    /// Trims entries that every group has acknowledged, and removes consumers that are gone; returns how many of each.
    pub(super) async fn tidy(&self) -> Result<(u64, u64), RedisFailure> {
        self.invoke_tidy("").await
    }

    /// Removes this consumer's own name, unless entries are pending under it.
    pub(super) async fn leave(&self) -> Result<(), RedisFailure> {
        self.invoke_tidy(&self.consumer).await.map(|_| ())
    }

    async fn invoke_tidy(&self, leaving: &str) -> Result<(u64, u64), RedisFailure> {
        let mut script = self.tidy.key(&self.stream);
        script.arg(&self.name).arg(millis(self.expiry)).arg(leaving);
        self.redis.run_script(&script, CALL_TIMEOUT).await
    }

    /// How many entries wait for the group.
    pub(super) async fn backlog(&self) -> Result<Backlog, RedisFailure> {
        let mut script = self.backlog.key(&self.stream);
        script.arg(&self.name);
        let (pending, undelivered, age): (u64, u64, i64) =
            self.redis.run_script(&script, CALL_TIMEOUT).await?;
        let oldest_age = u64::try_from(age).ok().map(Duration::from_millis);
        Ok(Backlog { messages: pending + undelivered, oldest_age })
    }

    /// Whether the server takes acknowledgements, as a primary does, also a full one.
    pub(super) async fn check(&self) -> Result<(), RedisFailure> {
        self.redis.run_command(redis::cmd("XACK").arg(&self.stream).arg(&self.name).arg("0-0")).await
    }

    async fn run_command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        match self.redis.run_command(command).await {
            Err(failure) if is_gone(&failure) => {
                self.ensure().await?;
                self.redis.run_command(command).await
            }
            done => done,
        }
    }

    /// Runs commands in one round trip. Fails with the error of the first command that failed.
    async fn run_pipeline(&self, pipe: &mut Pipeline) -> Result<Vec<Value>, RedisFailure> {
        pipe.ignore_errors();
        let answers = self.redis.run_pipeline_each(pipe).await?;
        for answer in &answers {
            if let Value::ServerError(error) = answer {
                return Err(RedisError::from(error.clone()).into());
            }
        }
        Ok(answers)
    }
}

/// Whether the answer says that the stream or the group does not exist: the server has lost its data.
pub(super) fn is_gone(failure: &RedisFailure) -> bool {
    failure.has_code(&["NOGROUP", "UNBLOCKED"])
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
