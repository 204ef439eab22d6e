//! Tickets: what opens one stream of a browser, whose `EventSource` cannot send a token.
//!
//! They are kept in Redis, so that any replica takes them, and by their hash, so that who can read Redis cannot use them.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::{
    domain::{order::CustomerId, tenant::TenantId},
    platform::redis::{Redis, RedisFailure},
};
use time::OffsetDateTime;

use crate::auth::{Caller, Role};

/// How long a ticket can be used after it was issued.
pub const TICKET_LIFETIME: Duration = Duration::from_mins(1);

/// What a ticket opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTicket {
    /// Who asked for it.
    pub caller: Caller,
    /// When the access token expires with which it was asked for.
    pub expires_at: OffsetDateTime,
}

/// Why a ticket cannot be issued or used.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// It was never issued, was used, or is too old.
    #[error("the ticket was used before, or is older than 60 s: request another one")]
    Invalid,
    /// It would open a stream, and something else was asked for.
    #[error("a ticket opens a stream: send `Accept: text/event-stream`, as an EventSource does")]
    ForStreamsOnly,
    /// Redis, which holds the tickets, does not answer.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// A ticket cannot be written or read.
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
}

/// A ticket as Redis holds it.
#[derive(Serialize, Deserialize)]
struct StoredTicket {
    #[serde(default, skip_serializing_if = "TenantId::is_default")]
    tenant: TenantId,
    /// The tenant of the token, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    home: Option<TenantId>,
    customer_id: CustomerId,
    role: Role,
    /// Seconds since the Unix epoch.
    expires: i64,
}

/// Stores a ticket and returns its text.
pub(super) async fn issue(redis: &Redis, ticket: StreamTicket) -> Result<String, TicketError> {
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let Caller { home: _, tenant, customer_id, role } = ticket.caller;
    let text = if tenant.is_default() { secret } else { format!("{tenant}.{secret}") };
    let stored = serde_json::to_string(&StoredTicket {
        tenant,
        home: ticket.caller.home_if_away(),
        customer_id,
        role,
        expires: ticket.expires_at.unix_timestamp(),
    })?;
    let key = key(&text);
    let mut set = redis::cmd("SET");
    set.arg(&key).arg(stored).arg("EX").arg(TICKET_LIFETIME.as_secs());
    redis.at_key(&key).run_command::<()>(&set).await?;
    Ok(text)
}

/// Returns what a ticket opens. Only the first call with the ticket does.
pub(super) async fn redeem(redis: &Redis, text: &str) -> Result<StreamTicket, TicketError> {
    let key = key(text);
    let stored: Option<String> = redis.at_key(&key).run_command(redis::cmd("GETDEL").arg(&key)).await?;
    let stored: StoredTicket = serde_json::from_str(&stored.ok_or(TicketError::Invalid)?)?;
    let StoredTicket { tenant, home, customer_id, role, expires } = stored;
    Ok(StreamTicket {
        caller: Caller { home: home.unwrap_or(tenant), tenant, customer_id, role },
        expires_at: OffsetDateTime::from_unix_timestamp(expires).map_err(|_| TicketError::Invalid)?,
    })
}

/// The key of a ticket. The tenant is in the text and in the key, unless it is the default one: the version before, which knows no
/// other and may run beside this one, does not find the tickets of others.
fn key(text: &str) -> String {
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(text));
    let tenant = text.split_once('.').and_then(|(tenant, _)| tenant.parse::<i32>().ok());
    match tenant {
        Some(tenant) => format!("ticket:{tenant}:{hash}"),
        None => format!("ticket:{hash}"),
    }
}
