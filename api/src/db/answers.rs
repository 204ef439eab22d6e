//! Answers kept for repeated requests.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use shared::domain::order::CustomerId;
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use super::customer;

/// The key of a request, its fingerprint, and the answer that shall stand under it.
#[derive(Clone, Debug)]
pub struct IdempotencyClaim {
    /// Keys belong to the customer who calls, not to the token.
    pub caller: CustomerId,
    /// As the client chose it.
    pub key: String,
    /// SHA-256 over method, route, path and the command.
    pub request_hash: [u8; 32],
    /// SHA-256 over the caller's role and the preconditions.
    pub context_hash: [u8; 32],
}

/// An answer as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The HTTP status.
    pub status: i16,
    /// The headers that belong to the answer, by name.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body.
    pub body: Bytes,
}

/// An answer that stands under a key, and the request to which it was given.
#[derive(Clone, Debug)]
pub struct Found {
    /// See [`IdempotencyClaim::request_hash`].
    pub request_hash: [u8; 32],
    /// See [`IdempotencyClaim::context_hash`]. `None` if a version that did not know it stored the answer.
    pub context_hash: Option<[u8; 32]>,
    /// The answer.
    pub answer: StoredResponse,
}

/// The columns of many claims, one array each; rows without a key are null.
#[derive(Default)]
pub(super) struct ClaimColumns<'a> {
    pub(super) callers: Vec<Option<i64>>,
    pub(super) keys: Vec<Option<&'a str>>,
    pub(super) hashes: Vec<Option<&'a [u8]>>,
    pub(super) contexts: Vec<Option<&'a [u8]>>,
    pub(super) statuses: Vec<Option<i16>>,
    pub(super) headers: Vec<Option<String>>,
    pub(super) bodies: Vec<Option<&'a [u8]>>,
}

impl<'a> ClaimColumns<'a> {
    pub(super) fn add(&mut self, claim: Option<(&'a IdempotencyClaim, &'a StoredResponse)>) {
        self.callers.push(claim.map(|(claim, _)| claim.caller.get()));
        self.keys.push(claim.map(|(claim, _)| claim.key.as_str()));
        self.hashes.push(claim.map(|(claim, _)| claim.request_hash.as_slice()));
        self.contexts.push(claim.map(|(claim, _)| claim.context_hash.as_slice()));
        self.statuses.push(claim.map(|(_, answer)| answer.status));
        self.headers
            .push(claim.map(|(_, answer)| serde_json::to_string(&answer.headers).unwrap_or_default()));
        self.bodies.push(claim.map(|(_, answer)| answer.body.as_ref()));
    }
}

/// Keeps answers that go with no change, such as a refusal that comes from the state of the order.
///
/// Gives those whose key was free, or held by an answer that has expired. Waits for others who write the same key.
pub async fn keep(
    db: &mut PgConnection,
    answers: &[(&IdempotencyClaim, &StoredResponse)],
    now: OffsetDateTime,
) -> Result<Vec<(CustomerId, String)>, sqlx::Error> {
    let mut columns = ClaimColumns::default();
    for answer in answers {
        columns.add(Some(*answer));
    }
    sqlx::query!(
        "INSERT INTO idempotency_keys AS held
             (customer_id, key, request_hash, context_hash, status, headers, body, created_at)
         SELECT caller, key, request_hash, context_hash, status, headers::json, body, $7::timestamptz
         FROM unnest($1::bigint[], $2::text[], $3::bytea[], $8::bytea[], $4::smallint[], $5::text[], $6::bytea[])
              AS t(caller, key, request_hash, context_hash, status, headers, body)
         ORDER BY caller, key
         ON CONFLICT (customer_id, key) DO UPDATE
             SET request_hash = excluded.request_hash, context_hash = excluded.context_hash, status = excluded.status,
                 headers = excluded.headers, body = excluded.body, created_at = excluded.created_at
             WHERE held.created_at <= excluded.created_at - interval '24 hours'
         RETURNING customer_id, key",
        &columns.callers as _,
        &columns.keys as _,
        &columns.hashes as _,
        &columns.statuses as _,
        &columns.headers as _,
        &columns.bodies as _,
        now,
        &columns.contexts as _,
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| Ok((customer(row.customer_id)?, row.key)))
    .collect()
}

/// The answers that stand under these keys, with the request that each was given to.
pub async fn find(
    db: &mut PgConnection,
    keys: &[(CustomerId, &str)],
) -> Result<HashMap<(CustomerId, String), Found>, sqlx::Error> {
    let callers: Vec<i64> = keys.iter().map(|(caller, _)| caller.get()).collect();
    let names: Vec<&str> = keys.iter().map(|(_, key)| *key).collect();
    sqlx::query!(
        r#"SELECT k.customer_id, k.key, k.request_hash, k.context_hash, k.status, k.body,
                  k.headers AS "headers: Json<Vec<(Cow<'static, str>, String)>>"
           FROM unnest($1::bigint[], $2::text[]) AS t(caller, key)
           JOIN idempotency_keys k ON k.customer_id = t.caller AND k.key = t.key"#,
        &callers,
        &names as _,
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| {
        let request_hash = row.request_hash.try_into().map_err(|_| super::impossible("request_hash"))?;
        let context_hash = row.context_hash.map(<[u8; 32]>::try_from).transpose();
        let context_hash = context_hash.map_err(|_| super::impossible("context_hash"))?;
        let answer = StoredResponse { status: row.status, headers: row.headers.0, body: row.body.into() };
        Ok(((customer(row.customer_id)?, row.key), Found { request_hash, context_hash, answer }))
    })
    .collect()
}

/// Removes up to `limit` answers from before `before`, and gives their number. The index on the age serves it,
/// and the rows are then taken by where they stand: by their keys, they might be looked for in the whole table.
pub async fn expire(db: &mut PgConnection, before: OffsetDateTime, limit: i64) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM idempotency_keys WHERE created_at <= $1
             ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        before,
        limit,
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}
