//! Responses stored under idempotency keys, for requests that are repeated.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use shared::domain::{order::CustomerId, tenant::TenantId};
use sqlx::{PgConnection, types::Json};

use super::decode::{decode_customer, impossible};

/// The key of a request, and the fingerprint that makes two requests the same.
#[derive(Clone, Debug)]
pub struct IdempotencyClaim {
    /// Keys belong to the customer who calls, not to the token.
    pub caller: CustomerId,
    /// See [`IdempotencyClaim::stored_key`].
    pub key: String,
    /// SHA-256 over method, route, path and what was understood of the body.
    pub request_hash: [u8; 32],
    /// SHA-256 over the caller's role and the preconditions.
    pub context_hash: [u8; 32],
}

impl IdempotencyClaim {
    /// A key as it is stored: as the client chose it, behind the tenant if that is not the default one. Two tenants' customers can
    /// have the same number, and the primary key stays as the version before needs it. What clients send has no spaces.
    ///
    /// The key of a caller whose `home` is another tenant stands behind both, so it is no customer's of either, and goes with the
    /// tenant in which it was used.
    pub fn stored_key(tenant: TenantId, home: TenantId, key: &str) -> String {
        if home != tenant {
            return format!("{tenant} {home} {key}");
        }
        if tenant.is_default() { key.to_owned() } else { format!("{tenant} {key}") }
    }
}

/// A response as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The HTTP status.
    pub status: i16,
    /// The headers that belong to the response, by name.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body.
    pub body: Bytes,
}

/// A stored response, and the fingerprint of its request.
#[derive(Clone, Debug)]
pub struct KeyedResponse {
    /// See [`IdempotencyClaim::request_hash`].
    pub request_hash: [u8; 32],
    /// See [`IdempotencyClaim::context_hash`]. `None` if a version that did not know it stored the response.
    pub context_hash: Option<[u8; 32]>,
    /// The response.
    pub response: StoredResponse,
}

/// Rows of `idempotency_keys`, one array for each column; null for requests without a key.
#[derive(Default)]
pub(super) struct ClaimColumns<'a> {
    pub(super) callers: Vec<Option<i64>>,
    pub(super) keys: Vec<Option<&'a str>>,
    pub(super) request_hashes: Vec<Option<&'a [u8]>>,
    pub(super) context_hashes: Vec<Option<&'a [u8]>>,
    pub(super) statuses: Vec<Option<i16>>,
    pub(super) headers: Vec<Option<String>>,
    pub(super) bodies: Vec<Option<&'a [u8]>>,
}

impl<'a> ClaimColumns<'a> {
    pub(super) fn push(&mut self, claim: Option<(&'a IdempotencyClaim, &'a StoredResponse)>) {
        self.callers.push(claim.map(|(claim, _)| claim.caller.get()));
        self.keys.push(claim.map(|(claim, _)| claim.key.as_str()));
        self.request_hashes.push(claim.map(|(claim, _)| claim.request_hash.as_slice()));
        self.context_hashes.push(claim.map(|(claim, _)| claim.context_hash.as_slice()));
        self.statuses.push(claim.map(|(_, response)| response.status));
        self.headers
            .push(claim.map(|(_, response)| serde_json::to_string(&response.headers).unwrap_or_default()));
        self.bodies.push(claim.map(|(_, response)| response.body.as_ref()));
    }
}

/// Stores responses that come with no change, such as a refusal because of the order's state.
///
/// Returns the claims whose key was free, or held by a response that has expired. Waits for others who write the same key.
pub async fn store_responses(
    db: &mut PgConnection,
    responses: &[(&IdempotencyClaim, &StoredResponse)],
) -> Result<Vec<(CustomerId, String)>, sqlx::Error> {
    let mut claims = ClaimColumns::default();
    for response in responses {
        claims.push(Some(*response));
    }
    let ClaimColumns { callers, keys, request_hashes, context_hashes, statuses, headers, bodies } = claims;
    sqlx::query!(
        "INSERT INTO idempotency_keys AS held
             (customer_id, key, request_hash, context_hash, status, headers, body)
         SELECT caller, key, request_hash, context_hash, status, headers::json, body
         FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bytea[], $5::smallint[], $6::text[], $7::bytea[])
              AS t(caller, key, request_hash, context_hash, status, headers, body)
         ORDER BY caller, key
         ON CONFLICT (customer_id, key) DO UPDATE
             SET request_hash = excluded.request_hash, context_hash = excluded.context_hash, status = excluded.status,
                 headers = excluded.headers, body = excluded.body, created_at = now()
             WHERE held.created_at <= now() - interval '24 hours'
         RETURNING customer_id, key",
        &callers as _,
        &keys as _,
        &request_hashes as _,
        &context_hashes as _,
        &statuses as _,
        &headers as _,
        &bodies as _,
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| Ok((decode_customer(row.customer_id)?, row.key)))
    .collect()
}

/// Reads the responses that stand under these keys.
pub async fn load_responses(
    db: &mut PgConnection,
    keys: &[(CustomerId, &str)],
) -> Result<HashMap<(CustomerId, String), KeyedResponse>, sqlx::Error> {
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
        let request_hash = row.request_hash.try_into().map_err(|_| impossible("request_hash"))?;
        let context_hash = row.context_hash.map(<[u8; 32]>::try_from).transpose();
        let context_hash = context_hash.map_err(|_| impossible("context_hash"))?;
        let response = StoredResponse { status: row.status, headers: row.headers.0, body: row.body.into() };
        let key = (decode_customer(row.customer_id)?, row.key);
        Ok((key, KeyedResponse { request_hash, context_hash, response }))
    })
    .collect()
}

/// Removes up to `limit` responses that are older than 24 hours by the clock of the database, and returns how many. The index on the age serves it,
/// and the rows are then taken by where they stand: by their keys, they might be looked for in the whole table.
pub async fn delete_expired_responses(db: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM idempotency_keys WHERE created_at <= now() - interval '24 hours'
             ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED))",
        limit,
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_callers_have_one_stored_key() {
        let tenant = |id: i32| TenantId::try_from(id).unwrap();
        // In which tenant, and at home in which one. Clients send what looks like another tenant's, but no spaces.
        let callers = [(1, 1), (1, 2), (1, 21), (2, 1), (2, 2), (2, 21), (21, 1), (21, 2), (21, 21)];
        let mut stored: Vec<_> = callers
            .into_iter()
            .flat_map(|(acting, home)| ["1", "2", "21", "k"].map(|key| (acting, home, key)))
            .map(|(acting, home, key)| IdempotencyClaim::stored_key(tenant(acting), tenant(home), key))
            .collect();
        let count = stored.len();
        stored.sort_unstable();
        stored.dedup();
        assert_eq!(stored.len(), count);
        assert_eq!(IdempotencyClaim::stored_key(tenant(1), tenant(1), "k"), "k");
        assert_eq!(IdempotencyClaim::stored_key(tenant(2), tenant(2), "k"), "2 k");
        assert_eq!(IdempotencyClaim::stored_key(tenant(2), tenant(1), "k"), "2 1 k");
        assert_eq!(IdempotencyClaim::stored_key(tenant(1), tenant(2), "k"), "1 2 k");
    }
}
