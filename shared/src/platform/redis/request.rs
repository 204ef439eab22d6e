//! Requests: a command, a pipeline or a script, to the owner of a slot or, with `ASKING`, to its next owner.

use redis::{
    Cmd, Pipeline, RedisFuture, RedisResult, ScriptInvocation, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

/// What can be sent.
pub(super) trait Request: Sync {
    fn send(
        &self,
        connection: &mut (impl ConnectionLike + Send),
    ) -> impl Future<Output = RedisResult<Value>> + Send;
}

impl Request for Cmd {
    async fn send(&self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<Value> {
        self.query_async(connection).await
    }
}

impl Request for Pipeline {
    async fn send(&self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<Value> {
        self.query_async(connection).await
    }
}

impl Request for ScriptInvocation<'_> {
    async fn send(&self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<Value> {
        self.invoke_async(connection).await
    }
}

impl<R: Request> Request for &R {
    async fn send(&self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<Value> {
        (**self).send(connection).await
    }
}

/// A connection to the node that a slot is being moved to. It serves the slot only to those who say `ASKING` before each command.
pub(super) struct Asking(pub(super) MultiplexedConnection);

impl ConnectionLike for Asking {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut both = Pipeline::with_capacity(2);
            both.cmd("ASKING").add_command(command.clone());
            let mut answers = self.0.req_packed_commands(&both, 0, 2).await?;
            answers.pop().unwrap_or(Value::Nil).extract_error()
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
            let mut both = Pipeline::with_capacity(2 * commands.len());
            for command in &commands {
                both.cmd("ASKING").add_command((*command).clone());
            }
            let answers = self.0.req_packed_commands(&both, 0, 2 * commands.len()).await?;
            Ok(answers.into_iter().skip(1).step_by(2).skip(offset).take(count).collect())
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}
