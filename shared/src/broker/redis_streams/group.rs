//! The consumer group: every command a consumer needs, each healing where the group is gone.

use std::{collections::HashSet, time::Duration};

use redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Script, Value};

use super::{
    RedisStreamsOptions,
    entries::{self, Entry},
    link::Link,
};
use crate::broker::{Backlog, BrokerError};

/// How many ids go into one command.
const CHUNK: usize = 1000;

/// One consumer's view of the group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) link: Link,
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
            link: Link::new(options, "source")?,
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

    /// Makes the group, from the beginning of what is there, unless it exists.
    pub(super) async fn ensure(&self) -> RedisResult<()> {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(&self.name).arg("0").arg("MKSTREAM");
        match self.link.run::<()>(&create).await {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            done => done,
        }
    }

    /// `XREADGROUP` for up to `max` entries that nobody has had yet; blocks where `block` is given.
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

    /// Takes over up to `max` entries that have been idle for `min_idle`, going on from `cursor`.
    pub(super) async fn auto_claim(
        &self,
        min_idle: Duration,
        cursor: &str,
        max: usize,
    ) -> RedisResult<(Option<String>, Vec<Entry>)> {
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(&self.stream).arg(&self.name).arg(&self.consumer).arg(millis(min_idle)).arg(cursor);
        claim.arg("COUNT").arg(max);
        self.run(&claim).await.map(entries::from_auto_claim)
    }

    /// Takes these entries for their next attempt.
    pub(super) async fn claim(&self, ids: &[String]) -> RedisResult<Vec<Entry>> {
        let mut claim = redis::cmd("XCLAIM");
        claim.arg(&self.stream).arg(&self.name).arg(&self.consumer).arg(0).arg(ids);
        self.run(&claim).await.map(entries::from_list)
    }

    /// For each entry its consumer and how often it was delivered, or `None` where it is no longer pending.
    pub(super) async fn pending(&self, ids: &[String]) -> RedisResult<Vec<Option<(String, u32)>>> {
        let mut pipe = Pipeline::with_capacity(ids.len());
        for id in ids {
            pipe.cmd("XPENDING").arg(&self.stream).arg(&self.name).arg(id).arg(id).arg(1);
        }
        Ok(self.run_all(&mut pipe).await?.into_iter().map(entries::pending).collect())
    }

    /// Everything that is pending under this consumer's name.
    pub(super) async fn mine(&self) -> RedisResult<HashSet<String>> {
        let mut mine = HashSet::new();
        let mut from = "-".to_owned();
        loop {
            let mut pending = redis::cmd("XPENDING");
            pending.arg(&self.stream).arg(&self.name).arg(&from).arg("+").arg(CHUNK).arg(&self.consumer);
            let page = entries::pending_ids(self.run(&pending).await?);
            let Some(last) = page.last() else { return Ok(mine) };
            from = format!("({last}");
            mine.extend(page);
        }
    }

    /// The heartbeat: these entries are in good hands. Their delivery count stays as it is.
    pub(super) async fn touch(&self, ids: &[String]) -> RedisResult<()> {
        for chunk in ids.chunks(CHUNK) {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(&self.stream).arg(&self.name).arg(&self.consumer).arg(0).arg(chunk).arg("JUSTID");
            self.run::<Value>(&claim).await?;
        }
        Ok(())
    }

    /// Makes each entry look as if it had been idle for so long.
    pub(super) async fn give_back(&self, idle: &[(String, Duration)]) -> RedisResult<()> {
        for chunk in idle.chunks(CHUNK) {
            let mut pipe = Pipeline::with_capacity(chunk.len());
            for (id, idle) in chunk {
                pipe.cmd("XCLAIM").arg(&self.stream).arg(&self.name).arg(&self.consumer).arg(0).arg(id);
                pipe.arg("IDLE").arg(millis(*idle)).arg("JUSTID");
            }
            self.run_all(&mut pipe).await?;
        }
        Ok(())
    }

    /// Done with these for good. One round trip.
    pub(super) async fn ack(&self, ids: &[String]) -> RedisResult<()> {
        let mut pipe = Pipeline::new();
        for chunk in ids.chunks(CHUNK) {
            pipe.cmd("XACK").arg(&self.stream).arg(&self.name).arg(chunk);
        }
        self.run_all(&mut pipe).await.map(|_| ())
    }

    /// Trims what every group has acknowledged and removes consumers that are gone: how many entries and names.
    pub(super) async fn tidy(&self) -> RedisResult<(u64, u64)> {
        self.invoke_tidy("").await
    }

    /// Removes this consumer's own name, unless entries are pending under it.
    pub(super) async fn leave(&self) -> RedisResult<()> {
        self.invoke_tidy(&self.consumer).await.map(|_| ())
    }

    async fn invoke_tidy(&self, leaving: &str) -> RedisResult<(u64, u64)> {
        let mut connected = self.link.get().await?;
        let mut script = self.tidy.key(&self.stream);
        script.arg(&self.name).arg(millis(self.expiry)).arg(leaving);
        let answer = script.invoke_async(&mut connected.connection).await;
        self.link.forget_if_broken(&answer).await;
        answer
    }

    /// How much waits for the group.
    pub(super) async fn backlog(&self) -> RedisResult<Backlog> {
        let mut connected = self.link.get().await?;
        let mut script = self.backlog.key(&self.stream);
        let answer: RedisResult<(u64, u64, i64)> =
            script.arg(&self.name).invoke_async(&mut connected.connection).await;
        self.link.forget_if_broken(&answer).await;
        let (pending, undelivered, age) = answer?;
        let oldest_age = u64::try_from(age).ok().map(Duration::from_millis);
        Ok(Backlog { messages: pending + undelivered, oldest_age })
    }

    /// Whether the server takes commands.
    pub(super) async fn ping(&self) -> RedisResult<()> {
        self.link.run(&redis::cmd("PING")).await
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self.link.run(command).await {
            Err(error) if is_gone(&error) => {
                self.ensure().await?;
                self.link.run(command).await
            }
            done => done,
        }
    }

    /// Runs commands in one round trip; the first that fails fails all.
    async fn run_all(&self, pipe: &mut Pipeline) -> RedisResult<Vec<Value>> {
        pipe.ignore_errors();
        let answers = self.link.run_all(pipe).await?;
        for answer in &answers {
            if let Value::ServerError(error) = answer {
                return Err(RedisError::from(error.clone()));
            }
        }
        Ok(answers)
    }
}

/// Whether the answer says that the stream or the group does not exist: the server has lost its data.
pub(super) fn is_gone(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOGROUP" | "UNBLOCKED"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
