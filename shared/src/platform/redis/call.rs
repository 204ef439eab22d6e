//! Making one call: on which connection, how often, and where to if a slot has moved.

use std::{sync::Arc, time::Duration};

use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::{sleep, timeout};

use super::{
    Redis, RedisFailure, Servers,
    cluster::Redirect,
    connector::ServerKind,
    failure::{has_code, is_unusable},
    link::{Era, Link, LiveConnection},
    request::{Asking, Request},
};

/// How often a request follows a slot that moves.
const MAX_REDIRECTS: u32 = 5;
/// Before a request is repeated whose keys are being moved.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// How often a request is sent if its connection breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempts {
    /// For commands that must not run twice.
    One,
    /// Once more, unless the connection that broke had just been made.
    Two,
}

impl Redis {
    pub(super) async fn call_each(
        &self,
        attempts: Attempts,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, RedisFailure> {
        let mut redirect = None;
        for _ in 0..MAX_REDIRECTS {
            let sending =
                self.call_on::<_, Vec<Value>>(self.deadline, attempts, redirect.take(), |_| pipeline);
            let (answers, open) = sending.await?;
            let errors = answers.iter().filter_map(|answer| match answer {
                Value::ServerError(error) => Some(RedisError::from(error.clone())),
                _ => None,
            });
            let first = errors.clone().next();
            if let Some(error) = errors.into_iter().find(is_unusable) {
                self.link(None).await?.close(&open, &error);
            }
            // All commands are about one key, so none was done if the first was not.
            redirect = first
                .as_ref()
                .filter(|_| matches!(answers.first(), Some(Value::ServerError(_))))
                .and_then(|error| self.redirect(error));
            if redirect.is_none() {
                return Ok(answers);
            }
        }
        Err(RedisFailure::Failed(moved_too_often()))
    }

    pub(super) async fn call<R: Request, T: FromRedisValue>(
        &self,
        deadline: Duration,
        attempts: Attempts,
        request: impl Fn(Option<&Era>) -> R + Sync,
    ) -> Result<T, RedisFailure> {
        self.call_on(deadline, attempts, None, request).await.map(|(answer, _)| answer)
    }

    /// The answer, and the connection on which it came.
    async fn call_on<R: Request, T: FromRedisValue>(
        &self,
        deadline: Duration,
        mut attempts: Attempts,
        mut redirect: Option<Redirect>,
        request: impl Fn(Option<&Era>) -> R + Sync,
    ) -> Result<(T, Arc<LiveConnection>), RedisFailure> {
        let mut used = None;
        let mut redirects = 0;
        let answer = timeout(deadline, async {
            loop {
                let link = self.link(redirect.as_ref()).await?;
                let (open, is_new) = link.open().await.inspect_err(|_| self.look_again())?;
                used = Some(Arc::clone(&open));
                self.check_guard(&open)?;
                let request = request(open.era.as_ref());
                let is_asking = redirect.take().is_some_and(|redirect| redirect.asking);
                let answer = async {
                    if is_asking {
                        request.send(&mut Asking(open.connection.clone())).await
                    } else {
                        request.send(&mut open.connection.clone()).await
                    }
                };
                let error = match open.while_open(answer).await {
                    Ok(answer) => {
                        return Ok((redis::from_redis_value(answer).map_err(RedisError::from)?, open));
                    }
                    Err(error) => error,
                };
                if is_unusable(&error) {
                    link.close(&open, &error);
                    self.look_again();
                    if !is_new && attempts == Attempts::Two {
                        attempts = Attempts::One;
                        continue;
                    }
                } else if redirects < MAX_REDIRECTS
                    && let Some(next) = self.redirect(&error)
                {
                    redirects += 1;
                    redirect = Some(next);
                    continue;
                } else if has_code(&error, &["TRYAGAIN"]) {
                    sleep(TRY_AGAIN_AFTER).await;
                    continue;
                }
                return Err(RedisFailure::Failed(error));
            }
        });
        answer.await.unwrap_or_else(|_| {
            if let Some(open) = used {
                open.check_now();
            }
            self.look_again();
            Err(RedisFailure::Deadline(deadline))
        })
    }

    pub(super) async fn link(&self, redirect: Option<&Redirect>) -> RedisResult<Arc<Link>> {
        match (&self.servers, redirect) {
            (Servers::One(link), _) => Ok(Arc::clone(link)),
            (Servers::Cluster(cluster), None) => cluster.link_for(self.slot).await,
            (Servers::Cluster(cluster), Some(redirect)) => cluster.link_to(redirect),
        }
    }

    /// Where this error sends the request on to.
    fn redirect(&self, error: &RedisError) -> Option<Redirect> {
        let Servers::Cluster(cluster) = &self.servers else { return None };
        let redirect = Redirect::from_error(error)?;
        if !redirect.asking {
            cluster.look_again();
        }
        Some(redirect)
    }

    /// A node may have been replaced.
    pub(super) fn look_again(&self) {
        if let Servers::Cluster(cluster) = &self.servers {
            cluster.look_again();
        }
    }

    /// Fails if a guarded call could read what is older than what was confirmed.
    fn check_guard(&self, open: &LiveConnection) -> RedisResult<()> {
        if !self.is_guarded || open.kind == ServerKind::Plain {
            return Ok(());
        }
        let lease = match &self.servers {
            Servers::One(_) => &open.lease,
            Servers::Cluster(cluster) => &cluster.lease,
        };
        if !lease.holds() {
            return Err(RedisError::from((
                ErrorKind::Server(ServerErrorKind::MasterDown),
                "more than half of the sentinels, or of the cluster's primaries, must confirm the primary",
            )));
        }
        if open.era.is_none() {
            return Err(RedisError::from((
                ErrorKind::Server(ServerErrorKind::NoPerm),
                "the user must be allowed to use INFO, so that entries from before a failover are recognised",
            )));
        }
        Ok(())
    }
}

fn moved_too_often() -> RedisError {
    (ErrorKind::Server(ServerErrorKind::TryAgain), "the slot moves from node to node").into()
}
