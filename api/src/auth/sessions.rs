//! Sessions in Redis: one per login, over which refresh tokens rotate.
//!
//! Redis holds ids, never tokens: tokens are signed from the ids, so that a repeated refresh gives equal tokens.

use std::{sync::LazyLock, time::Duration};

use redis::Script;
use shared::redis::Redis;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Caller, TokenError,
    tokens::{REFRESH_LIFETIME, RefreshToken, Tokens},
};
use crate::error::ApiError;

/// Within this time of its rotation, a spent token still gives its successor.
const GRACE: time::Duration = time::Duration::seconds(10);

/// A refresh waits this long for Redis, then it is 503.
const DEADLINE: Duration = Duration::from_millis(500);

static ROTATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sessions.lua")));

/// Both tokens of a pair.
pub(super) struct Pair {
    pub(super) access: String,
    pub(super) refresh: String,
}

/// Begins a session.
pub(super) async fn begin(
    redis: &Redis,
    tokens: &Tokens,
    caller: Caller,
    now: OffsetDateTime,
) -> Result<Pair, ApiError> {
    let (session, token) = (new_id(), new_id());
    let mut pipeline = redis::pipe();
    pipeline.atomic().hset(key(&session), "current", &token).ignore();
    pipeline.pexpire(key(&session), ttl_ms()).ignore();
    redis.run_all::<()>(&pipeline).await?;
    sign(tokens, caller, &session, &token, &new_id(), now)
}

/// Exchanges a refresh token. The outer error is for a Redis that does not answer.
pub(super) async fn rotate(
    redis: &Redis,
    tokens: &Tokens,
    presented: &RefreshToken,
    now: OffsetDateTime,
) -> Result<Result<Pair, TokenError>, ApiError> {
    let Some((session, token)) = presented.jti.split_once('.') else { return Ok(Err(TokenError::Malformed)) };
    let mut invocation = ROTATE.prepare_invoke();
    invocation
        .key(key(session))
        .arg(token)
        .arg(new_id())
        .arg(new_id())
        .arg(now.unix_timestamp())
        .arg(millis(now))
        .arg(i64::try_from(GRACE.whole_milliseconds()).unwrap_or(i64::MAX))
        .arg(ttl_ms());
    let successor: Vec<String> = redis.invoke(&invocation, DEADLINE).await?;
    let [token, access, second] = successor.as_slice() else { return Ok(Err(TokenError::SessionOver)) };
    let at = second
        .parse()
        .ok()
        .and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok())
        .ok_or_else(|| ApiError::internal("the session in Redis cannot be read"))?;
    sign(tokens, presented.caller, session, token, access, at).map(Ok)
}

/// Ends the session that a token belongs to, with every token of it.
pub(super) async fn end(redis: &Redis, presented: &RefreshToken) -> Result<(), ApiError> {
    let session = presented.jti.split_once('.').map_or(presented.jti.as_str(), |(session, _)| session);
    Ok(redis.run(redis::cmd("DEL").arg(key(session))).await?)
}

fn sign(
    tokens: &Tokens,
    caller: Caller,
    session: &str,
    token: &str,
    access: &str,
    at: OffsetDateTime,
) -> Result<Pair, ApiError> {
    Ok(Pair {
        access: tokens.access(caller, access, at)?,
        refresh: tokens.refresh(caller, &format!("{session}.{token}"), at)?,
    })
}

fn key(session: &str) -> String {
    format!("session:{session}")
}

fn new_id() -> String {
    Uuid::now_v7().simple().to_string()
}

fn ttl_ms() -> i64 {
    i64::try_from(REFRESH_LIFETIME.whole_milliseconds()).unwrap_or(i64::MAX)
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
