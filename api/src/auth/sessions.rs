//! Sessions in Redis: one per login, over which refresh tokens rotate.
//!
//! Redis holds ids, never tokens: tokens are signed from the ids, so that a repeated refresh returns equal tokens. How and
//! when a session began, and in which generation, is in its id, which is part of every token of the session. Its key names its
//! tenant, so that a token of one tenant finds no session of another.

use std::{sync::LazyLock, time::Duration};

use redis::Script;
use shared::{domain::tenant::TenantId, platform::redis::Redis};
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use super::{
    AuthError, Caller, Role, TokenError,
    accounts::CustomerStatus,
    tokens::{REFRESH_LIFETIME, RefreshToken, TokenKeys},
};

/// A session ends this long after its login, however often it is refreshed.
pub const MAX_SESSION_AGE: time::Duration = time::Duration::days(90);

/// For this long after its rotation, a used token still returns its successor.
const GRACE: time::Duration = time::Duration::seconds(10);

/// Used tokens that a session remembers. A client that refreshes more often than this within the grace gets 429 for the older
/// ones, and the session goes on.
const MAX_USED: usize = 64;

/// A refresh waits this long for Redis, then it fails with 503.
const DEADLINE: Duration = Duration::from_millis(500);

/// One step, so that no session is left without an end.
static BEGIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('HSET', KEYS[1], 'current', ARGV[1]) return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});
static ROTATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sessions.lua")));

/// The current tokens of a session.
pub(crate) struct SessionTokens {
    pub(crate) caller: Caller,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

/// How a session began. The generation is the customer's at that time; `logout-all` begins the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOrigin {
    /// With the password of an account.
    Account { generation: i64 },
    /// With the test login: its customer needs no account.
    TestLogin { generation: i64 },
    /// In an older version, whose session ids do not name the origin: either of the two.
    Unmarked,
}

/// Which sessions can go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRules {
    /// Those of the test login.
    pub(crate) test_login: bool,
    /// Those of this customer's account.
    pub(crate) account: bool,
}

/// The parsed id of a session.
struct SessionId<'a> {
    text: &'a str,
    origin: SessionOrigin,
    began: OffsetDateTime,
}

impl<'a> SessionId<'a> {
    /// Parses an id such as `a0-` and a UUID of version 7, which holds the time. Ids of older versions are the UUID alone.
    fn parse(text: &'a str) -> Result<Self, TokenError> {
        let (origin, uuid) = match text.split_once('-') {
            None => (SessionOrigin::Unmarked, text),
            Some((mark, uuid)) => {
                let (kind, generation) = mark.split_at_checked(1).ok_or(TokenError::Malformed)?;
                let generation = generation.parse().map_err(|_| TokenError::Malformed)?;
                match kind {
                    "a" => (SessionOrigin::Account { generation }, uuid),
                    "t" => (SessionOrigin::TestLogin { generation }, uuid),
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

    fn new_text(origin: SessionOrigin, now: OffsetDateTime) -> String {
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        let uuid = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond())).simple();
        match origin {
            SessionOrigin::Account { generation } => format!("a{generation}-{uuid}"),
            SessionOrigin::TestLogin { generation } => format!("t{generation}-{uuid}"),
            SessionOrigin::Unmarked => uuid.to_string(),
        }
    }

    /// Returns the role with which the session goes on, or `None` if it is over.
    fn current_role(
        &self,
        claimed: Role,
        status: &CustomerStatus,
        rules: SessionRules,
        now: OffsetDateTime,
    ) -> Option<Role> {
        let not_ended = match self.origin {
            SessionOrigin::Account { generation } | SessionOrigin::TestLogin { generation } => {
                generation == status.generation
            }
            SessionOrigin::Unmarked => status.sessions_ended_at.is_none_or(|ended| self.began > ended),
        };
        if !not_ended || now - self.began >= MAX_SESSION_AGE {
            return None;
        }
        let of_account = status.role.filter(|_| rules.account);
        let of_test_login = rules.test_login.then_some(claimed);
        match self.origin {
            SessionOrigin::Account { .. } => of_account,
            SessionOrigin::TestLogin { .. } => of_test_login,
            SessionOrigin::Unmarked => of_account.or(of_test_login),
        }
    }
}

/// Begins a session and returns its first tokens.
pub(crate) async fn begin_session(
    redis: &Redis,
    keys: &TokenKeys,
    caller: Caller,
    origin: SessionOrigin,
    now: OffsetDateTime,
) -> Result<SessionTokens, AuthError> {
    let (session, token) = (SessionId::new_text(origin, now), new_id());
    let key = key(caller.home, &session);
    let mut invocation = BEGIN.prepare_invoke();
    invocation.key(&key).arg(&token).arg(ttl_ms());
    redis.at_key(&key).run_script::<()>(&invocation, DEADLINE).await?;
    sign_tokens(keys, caller, &session, &token, &new_id(), now)
}

/// Exchanges a refresh token for the next tokens, if the session goes on.
pub(crate) async fn rotate_token(
    redis: &Redis,
    keys: &TokenKeys,
    presented: &RefreshToken,
    status: &CustomerStatus,
    rules: SessionRules,
    now: OffsetDateTime,
) -> Result<SessionTokens, AuthError> {
    let (session, token) = presented.jti.split_once('.').ok_or(TokenError::Malformed)?;
    let session = SessionId::parse(session)?;
    let role =
        session.current_role(presented.caller.role, status, rules, now).ok_or(TokenError::SessionOver)?;
    let caller = Caller { role, ..presented.caller };

    let key = key(caller.home, session.text);
    let mut invocation = ROTATE.prepare_invoke();
    invocation
        .key(&key)
        .arg(token)
        .arg(new_id())
        .arg(new_id())
        .arg(now.unix_timestamp())
        .arg(millis(now))
        .arg(i64::try_from(GRACE.whole_milliseconds()).unwrap_or(i64::MAX))
        .arg(ttl_ms())
        .arg(MAX_USED)
        .arg(presented.issued_at);
    let successor: Vec<String> = redis.at_key(&key).run_script(&invocation, DEADLINE).await?;
    let (token, access, second) = match successor.as_slice() {
        [token, access, second] => (token, access, second),
        [] => return Err(TokenError::SessionOver.into()),
        _ => return Err(AuthError::RefreshedTooOften { times: MAX_USED, seconds: GRACE.whole_seconds() }),
    };
    let at = second
        .parse()
        .ok()
        .and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok())
        .ok_or_else(|| AuthError::internal("the session in Redis cannot be read"))?;
    sign_tokens(keys, caller, session.text, token, access, at)
}

/// Ends the session of a refresh token, with all its tokens.
pub(crate) async fn end_session(redis: &Redis, presented: &RefreshToken) -> Result<(), AuthError> {
    let session = presented.jti.split_once('.').map_or(presented.jti.as_str(), |(session, _)| session);
    let key = key(presented.caller.home, session);
    Ok(redis.at_key(&key).run_command(redis::cmd("DEL").arg(&key)).await?)
}

fn sign_tokens(
    keys: &TokenKeys,
    caller: Caller,
    session: &str,
    token: &str,
    access: &str,
    at: OffsetDateTime,
) -> Result<SessionTokens, AuthError> {
    Ok(SessionTokens {
        caller,
        access: keys.sign_access(caller, access, at)?,
        refresh: keys.sign_refresh(caller, &format!("{session}.{token}"), at)?,
    })
}

/// The key of the default tenant has no tenant, as in the version before.
fn key(tenant: TenantId, session: &str) -> String {
    if tenant.is_default() { format!("session:{session}") } else { format!("session:{tenant}:{session}") }
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

    fn status(role: Option<Role>, ended: Option<OffsetDateTime>) -> CustomerStatus {
        CustomerStatus { role, generation: i64::from(ended.is_some()), sessions_ended_at: ended }
    }

    /// The role with which an admin's session that began at [`NOW`] goes on an hour later.
    fn role(origin: SessionOrigin, status: &CustomerStatus, rules: SessionRules) -> Option<Role> {
        let text = SessionId::new_text(origin, NOW);
        let session = SessionId::parse(&text).unwrap();
        assert_eq!((session.origin, session.began), (origin, NOW));
        session.current_role(Role::Admin, status, rules, NOW + Duration::HOUR)
    }

    #[test]
    fn the_account_decides_the_role_and_whether_there_is_a_session_at_all() {
        let account = SessionOrigin::Account { generation: 0 };
        let demoted = status(Some(Role::Customer), None);
        assert_eq!(role(account, &demoted, DEVELOPMENT), Some(Role::Customer));
        assert_eq!(role(account, &status(None, None), DEVELOPMENT), None);
        let no_accounts = SessionRules { account: false, ..DEVELOPMENT };
        assert_eq!(role(account, &demoted, no_accounts), None);
    }

    #[test]
    fn a_session_of_the_test_login_needs_the_test_login_and_no_account() {
        let test = SessionOrigin::TestLogin { generation: 0 };
        for status in [status(None, None), status(Some(Role::Customer), None)] {
            assert_eq!(role(test, &status, DEVELOPMENT), Some(Role::Admin));
            assert_eq!(role(test, &status, PRODUCTION), None);
        }
    }

    #[test]
    fn a_session_of_an_older_version_goes_on_with_either_origin() {
        let old = SessionOrigin::Unmarked;
        assert_eq!(role(old, &status(Some(Role::Customer), None), PRODUCTION), Some(Role::Customer));
        assert_eq!(role(old, &status(None, None), PRODUCTION), None);
        assert_eq!(role(old, &status(None, None), DEVELOPMENT), Some(Role::Admin));
    }

    #[test]
    fn ending_all_sessions_ends_those_that_have_begun_and_no_later_ones() {
        let account = Some(Role::Customer);
        let ended = status(account, Some(NOW));
        assert_eq!(role(SessionOrigin::Account { generation: 0 }, &ended, PRODUCTION), None);
        assert_eq!(role(SessionOrigin::Account { generation: 1 }, &ended, PRODUCTION), account);
        assert_eq!(role(SessionOrigin::Unmarked, &ended, PRODUCTION), None);
        let earlier = status(account, Some(NOW - Duration::MILLISECOND));
        assert_eq!(role(SessionOrigin::Unmarked, &earlier, PRODUCTION), account);
    }

    #[test]
    fn ids_that_were_never_issued_are_refused() {
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
