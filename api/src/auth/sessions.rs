//! Sessions in Redis: one per login, over which refresh tokens rotate.
//!
//! Redis holds ids, never tokens: tokens are signed from the ids, so that a repeated refresh gives equal tokens. What must
//! hold for the whole life of a session is in its id, which is signed with each token and so outlives every rotation: how
//! it began, in which generation, and when.

use std::{sync::LazyLock, time::Duration};

use axum::http::{HeaderValue, header};
use redis::Script;
use shared::platform::redis::Redis;
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use super::{
    Caller, Role, TokenError,
    accounts::Standing,
    tokens::{REFRESH_LIFETIME, RefreshToken, Tokens},
};
use crate::http::error::{ApiError, Code};

/// A session ends this long after its login, however often it is refreshed.
pub const MAX_SESSION_AGE: time::Duration = time::Duration::days(90);

/// Within this time of its rotation, a spent token still gives its successor.
const GRACE: time::Duration = time::Duration::seconds(10);

/// Spent tokens that a session remembers. Somebody who refreshes more often than this within the grace gets 429 for the
/// older ones, and the session stays.
const MAX_SPENT: usize = 64;

/// A refresh waits this long for Redis, then it is 503.
const DEADLINE: Duration = Duration::from_millis(500);

static ROTATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sessions.lua")));

/// Both tokens of a pair.
pub(crate) struct Pair {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

/// How a session began. The generation is the customer's at that time: `logout-all` begins the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// With the password of an account.
    Account { generation: i64 },
    /// By the test login: its customer needs no account.
    TestLogin { generation: i64 },
    /// In a version that did not mark sessions: one of both.
    Unmarked,
}

/// How sessions may go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRules {
    /// Those of the test login may.
    pub(crate) test_login: bool,
    /// Those of this customer's account may.
    pub(crate) account: bool,
}

/// The id of a session, read.
struct SessionId<'a> {
    text: &'a str,
    origin: Origin,
    began: OffsetDateTime,
}

impl<'a> SessionId<'a> {
    /// Such as `a0-` and a UUID of version 7, which holds the time; sessions of older versions have the UUID alone.
    fn parse(text: &'a str) -> Result<Self, TokenError> {
        let (origin, uuid) = match text.split_once('-') {
            None => (Origin::Unmarked, text),
            Some((mark, uuid)) => {
                let (kind, generation) = mark.split_at_checked(1).ok_or(TokenError::Malformed)?;
                let generation = generation.parse().map_err(|_| TokenError::Malformed)?;
                match kind {
                    "a" => (Origin::Account { generation }, uuid),
                    "t" => (Origin::TestLogin { generation }, uuid),
                    _ => return Err(TokenError::Malformed),
                }
            }
        };
        let began = Uuid::try_parse(uuid).ok().and_then(|uuid| uuid.get_timestamp());
        let (seconds, nanos) = began.ok_or(TokenError::Malformed)?.to_unix();
        let began = i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
        let began = began.ok_or(TokenError::Malformed)? + time::Duration::nanoseconds(nanos.into());
        Ok(Self { text, origin, began })
    }

    fn new_text(origin: Origin, now: OffsetDateTime) -> String {
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        let uuid = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond())).simple();
        match origin {
            Origin::Account { generation } => format!("a{generation}-{uuid}"),
            Origin::TestLogin { generation } => format!("t{generation}-{uuid}"),
            Origin::Unmarked => uuid.to_string(),
        }
    }

    /// The role in which the session goes on, if it does.
    fn role(
        &self,
        claimed: Role,
        standing: &Standing,
        rules: SessionRules,
        now: OffsetDateTime,
    ) -> Option<Role> {
        let not_ended = match self.origin {
            Origin::Account { generation } | Origin::TestLogin { generation } => {
                generation == standing.generation
            }
            Origin::Unmarked => standing.sessions_ended_at.is_none_or(|ended| self.began > ended),
        };
        if !not_ended || now - self.began >= MAX_SESSION_AGE {
            return None;
        }
        let of_account = standing.role.filter(|_| rules.account);
        let of_test_login = rules.test_login.then_some(claimed);
        match self.origin {
            Origin::Account { .. } => of_account,
            Origin::TestLogin { .. } => of_test_login,
            Origin::Unmarked => of_account.or(of_test_login),
        }
    }
}

/// Begins a session.
pub(crate) async fn begin(
    redis: &Redis,
    tokens: &Tokens,
    caller: Caller,
    origin: Origin,
    now: OffsetDateTime,
) -> Result<Pair, ApiError> {
    let (session, token) = (SessionId::new_text(origin, now), new_id());
    let mut pipeline = redis::pipe();
    pipeline.atomic().hset(key(&session), "current", &token).ignore();
    pipeline.pexpire(key(&session), ttl_ms()).ignore();
    redis.run_pipeline::<()>(&pipeline).await?;
    sign(tokens, caller, &session, &token, &new_id(), now)
}

/// Exchanges a refresh token, if the session may go on. The caller is who it goes on for. The outer error is for a Redis that
/// does not answer.
pub(crate) async fn rotate(
    redis: &Redis,
    tokens: &Tokens,
    presented: &RefreshToken,
    standing: &Standing,
    rules: SessionRules,
    now: OffsetDateTime,
) -> Result<Result<(Pair, Caller), TokenError>, ApiError> {
    let Some((session, token)) = presented.jti.split_once('.') else { return Ok(Err(TokenError::Malformed)) };
    let session = match SessionId::parse(session) {
        Ok(session) => session,
        Err(error) => return Ok(Err(error)),
    };
    let Some(role) = session.role(presented.caller.role, standing, rules, now) else {
        return Ok(Err(TokenError::SessionOver));
    };
    let caller = Caller { role, ..presented.caller };

    let mut invocation = ROTATE.prepare_invoke();
    invocation
        .key(key(session.text))
        .arg(token)
        .arg(new_id())
        .arg(new_id())
        .arg(now.unix_timestamp())
        .arg(millis(now))
        .arg(i64::try_from(GRACE.whole_milliseconds()).unwrap_or(i64::MAX))
        .arg(ttl_ms())
        .arg(MAX_SPENT)
        .arg(presented.issued_at);
    let successor: Vec<String> = redis.run_script(&invocation, DEADLINE).await?;
    let (token, access, second) = match successor.as_slice() {
        [token, access, second] => (token, access, second),
        [] => return Ok(Err(TokenError::SessionOver)),
        _ => return Err(refreshed_too_often()),
    };
    let at = second
        .parse()
        .ok()
        .and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok())
        .ok_or_else(|| ApiError::internal("the session in Redis cannot be read"))?;
    let pair = sign(tokens, caller, session.text, token, access, at)?;
    Ok(Ok((pair, caller)))
}

/// Ends the session that a token belongs to, with every token of it.
pub(crate) async fn end(redis: &Redis, presented: &RefreshToken) -> Result<(), ApiError> {
    let session = presented.jti.split_once('.').map_or(presented.jti.as_str(), |(session, _)| session);
    Ok(redis.run_command(redis::cmd("DEL").arg(key(session))).await?)
}

fn refreshed_too_often() -> ApiError {
    let detail =
        format!("the session was refreshed more than {MAX_SPENT} times in {} s", GRACE.whole_seconds());
    ApiError::new(Code::RateLimited, detail).with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
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

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2025-01-20 10:00 UTC);
    const PRODUCTION: SessionRules = SessionRules { test_login: false, account: true };
    const DEVELOPMENT: SessionRules = SessionRules { test_login: true, account: true };

    fn standing(role: Option<Role>, ended: Option<OffsetDateTime>) -> Standing {
        Standing { role, generation: i64::from(ended.is_some()), sessions_ended_at: ended }
    }

    /// The role in which an admin's session that began at [`NOW`] goes on an hour later.
    fn role(origin: Origin, standing: &Standing, rules: SessionRules) -> Option<Role> {
        let text = SessionId::new_text(origin, NOW);
        let session = SessionId::parse(&text).unwrap();
        assert_eq!((session.origin, session.began), (origin, NOW));
        session.role(Role::Admin, standing, rules, NOW + Duration::HOUR)
    }

    #[test]
    fn the_account_decides_the_role_and_whether_there_is_a_session_at_all() {
        let account = Origin::Account { generation: 0 };
        let demoted = standing(Some(Role::Customer), None);
        assert_eq!(role(account, &demoted, DEVELOPMENT), Some(Role::Customer));
        assert_eq!(role(account, &standing(None, None), DEVELOPMENT), None);
        let no_accounts = SessionRules { account: false, ..DEVELOPMENT };
        assert_eq!(role(account, &demoted, no_accounts), None);
    }

    #[test]
    fn a_session_of_the_test_login_needs_no_account_but_the_test_login() {
        let test = Origin::TestLogin { generation: 0 };
        for standing in [standing(None, None), standing(Some(Role::Customer), None)] {
            assert_eq!(role(test, &standing, DEVELOPMENT), Some(Role::Admin));
            assert_eq!(role(test, &standing, PRODUCTION), None);
        }
    }

    #[test]
    fn a_session_of_an_older_version_goes_on_as_what_it_can_be() {
        let old = Origin::Unmarked;
        assert_eq!(role(old, &standing(Some(Role::Customer), None), PRODUCTION), Some(Role::Customer));
        assert_eq!(role(old, &standing(None, None), PRODUCTION), None);
        assert_eq!(role(old, &standing(None, None), DEVELOPMENT), Some(Role::Admin));
    }

    #[test]
    fn ending_all_sessions_ends_those_that_had_begun_and_no_later_ones() {
        let account = Some(Role::Customer);
        let ended = standing(account, Some(NOW));
        assert_eq!(role(Origin::Account { generation: 0 }, &ended, PRODUCTION), None);
        assert_eq!(role(Origin::Account { generation: 1 }, &ended, PRODUCTION), account);
        assert_eq!(role(Origin::Unmarked, &ended, PRODUCTION), None);
        let earlier = standing(account, Some(NOW - Duration::MILLISECOND));
        assert_eq!(role(Origin::Unmarked, &earlier, PRODUCTION), account);
    }

    #[test]
    fn ids_that_were_never_given_out_are_refused() {
        let uuid = Uuid::now_v7().simple();
        for text in [
            String::new(),
            "x".to_owned(),
            format!("-{uuid}"),
            format!("a-{uuid}"),
            format!("b0-{uuid}"),
            format!("é0-{uuid}"),
            format!("a99999999999999999999-{uuid}"),
            Uuid::nil().simple().to_string(),
        ] {
            assert_eq!(SessionId::parse(&text).map(|id| id.origin), Err(TokenError::Malformed), "{text}");
        }
    }
}
