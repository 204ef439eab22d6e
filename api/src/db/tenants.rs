//! The SQL of tenants.

use serde::Serialize;
use shared::domain::{tenant::TenantId, timestamp};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    decode::decode_tenant,
    idempotency::{IdempotencyClaim, StoredResponse, store_responses},
};

/// The quota of a tenant with its slug, and who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRow {
    /// Which tenant.
    pub id: TenantId,
    /// What people call it.
    pub slug: String,
    /// Whether its callers are refused.
    pub suspended: bool,
    /// Whether its removal has begun: nobody is let in.
    pub is_being_removed: bool,
    /// The quota of all its requests together, such as `1000/60s`.
    pub rate_limit: Option<String>,
}

/// A tenant as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 2, "slug": "my-shop", "name": "My shop", "timezone": "Europe/Berlin", "rate_limit": "1000/60s", "suspended": false,
    "version": 1, "created_at": "2025-01-20T10:00:00.123456Z", "updated_at": "2025-01-20T10:00:00.123456Z"
}))]
pub struct Tenant {
    /// Its number, by which tokens and `X-Tenant-Id` name it.
    pub id: TenantId,
    /// What logins name it by.
    #[schema(max_length = 40, pattern = "^[a-z0-9-]*[a-z][a-z0-9-]*$")]
    pub slug: String,
    /// Its name.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// The IANA name of the time zone of its days and months.
    pub timezone: String,
    /// The quota of all requests of its callers together, but for operators; `null` is no limit.
    pub rate_limit: Option<String>,
    /// Whether its callers get 403 (`tenant_suspended`).
    pub suspended: bool,
    /// How far its removal has come. Until it is gone its callers get 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub removal: Option<TenantRemoval>,
    /// Grows by one with each change; the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
    /// When it was created.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
}

/// What an operator sets of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantSettings {
    /// What logins name it by.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// An IANA name.
    pub timezone: String,
    /// The quota of all its requests together, such as `1000/60s`.
    pub rate_limit: Option<String>,
    /// Whether its callers are refused.
    pub suspended: bool,
}

impl Tenant {
    /// What an operator has set.
    pub fn settings(&self) -> TenantSettings {
        TenantSettings {
            slug: self.slug.clone(),
            name: self.name.clone(),
            timezone: self.timezone.clone(),
            rate_limit: self.rate_limit.clone(),
            suspended: self.suspended,
        }
    }
}

/// The job that removes a tenant with everything of it. A worker does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TenantRemoval {
    /// When it was ordered.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub began_at: OffsetDateTime,
    /// What is being removed: `waiting` for requests that were under way and for events to be published, then `events`, `orders`, `history`, `rest`, `outside`
    /// (Redis and the broker). The tenant is gone after the last.
    pub step: String,
    /// Events that are gone from the log. Their positions stay used.
    #[schema(minimum = 0)]
    pub events: i64,
    /// Orders that are gone.
    #[schema(minimum = 0)]
    pub orders: i64,
    /// Entries of the history that are gone.
    #[schema(minimum = 0)]
    pub entries: i64,
}

/// The result of writing a tenant under a key.
#[derive(Debug)]
pub enum TenantWrite {
    /// It was written, and this is the response.
    Written(StoredResponse),
    /// Nothing was written, because the key is taken.
    KeyTaken,
}

/// Loads what every request needs to know of its tenant, of all tenants.
pub async fn load_tenant_rows(db: &mut PgConnection) -> Result<Vec<TenantRow>, sqlx::Error> {
    sqlx::query!(
        r#"SELECT id, slug, suspended, removal_began_at IS NOT NULL AS "is_being_removed!", rate_limit FROM tenants"#
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| {
        Ok(TenantRow {
            id: decode_tenant(row.id)?,
            slug: row.slug,
            suspended: row.suspended,
            is_being_removed: row.is_being_removed,
            rate_limit: row.rate_limit,
        })
    })
    .collect()
}

/// Loads up to `limit` tenants with ids above `after`, in ascending order.
pub async fn load_tenants(db: &mut PgConnection, after: i32, limit: i64) -> Result<Vec<Tenant>, sqlx::Error> {
    sqlx::query_as!(
        StoredTenant,
        "SELECT id, slug, name, timezone, rate_limit, suspended, removal_began_at, removal_step,
                removed_events, removed_orders, removed_entries, version, created_at, updated_at
         FROM tenants WHERE id > $1 ORDER BY id LIMIT $2",
        after,
        limit
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(StoredTenant::decode)
    .collect()
}

/// Loads one tenant.
pub async fn load_tenant(db: &mut PgConnection, id: TenantId) -> Result<Option<Tenant>, sqlx::Error> {
    sqlx::query_as!(
        StoredTenant,
        "SELECT id, slug, name, timezone, rate_limit, suspended, removal_began_at, removal_step,
                removed_events, removed_orders, removed_entries, version, created_at, updated_at
         FROM tenants WHERE id = $1",
        id.get()
    )
    .fetch_optional(db)
    .await?
    .map(StoredTenant::decode)
    .transpose()
}

/// Returns the tenant with this slug.
pub async fn find_tenant(db: &mut PgConnection, slug: &str) -> Result<Option<TenantId>, sqlx::Error> {
    sqlx::query_scalar!("SELECT id FROM tenants WHERE slug = $1", slug)
        .fetch_optional(db)
        .await?
        .map(decode_tenant)
        .transpose()
}

/// Whether PostgreSQL knows a time zone by this IANA name. It would also take abbreviations and rules of its own, which are no
/// such names.
pub async fn is_time_zone(db: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM pg_timezone_names
               WHERE name = $1 AND name NOT LIKE 'posix%' AND name NOT IN ('localtime', 'Factory')
           ) AS "known!""#,
        name
    )
    .fetch_one(db)
    .await
}

/// Creates a tenant, and stores the response under the key of its request. Fails if the slug is taken (`tenants_slug_unique`).
pub async fn insert_tenant(
    db: &mut PgConnection,
    settings: &TenantSettings,
    claim: Option<&IdempotencyClaim>,
    respond: impl Fn(&Tenant) -> StoredResponse,
) -> Result<TenantWrite, sqlx::Error> {
    let mut transaction = db.begin().await?;
    let created = sqlx::query_as!(
        StoredTenant,
        "INSERT INTO tenants (slug, name, timezone, rate_limit, suspended) VALUES ($1, $2, $3, $4, $5)
         RETURNING id, slug, name, timezone, rate_limit, suspended, removal_began_at, removal_step,
                removed_events, removed_orders, removed_entries, version, created_at, updated_at",
        settings.slug,
        settings.name,
        settings.timezone,
        settings.rate_limit,
        settings.suspended
    )
    .fetch_one(&mut *transaction)
    .await?;
    let response = respond(&created.decode()?);
    finish(transaction, claim, response).await
}

/// Changes a tenant if it still has the version `expected`, and stores the response under the key of its request. Returns `None` if
/// it has another one by now, or is gone. Fails if the slug is taken (`tenants_slug_unique`).
pub async fn update_tenant(
    db: &mut PgConnection,
    id: TenantId,
    expected: i64,
    settings: &TenantSettings,
    claim: Option<&IdempotencyClaim>,
    respond: impl Fn(&Tenant) -> StoredResponse,
) -> Result<Option<TenantWrite>, sqlx::Error> {
    let mut transaction = db.begin().await?;
    let changed = sqlx::query_as!(
        StoredTenant,
        "UPDATE tenants
         SET slug = $3, name = $4, timezone = $5, rate_limit = $6, suspended = $7, version = version + 1,
             updated_at = greatest(updated_at, clock_timestamp())
         WHERE id = $1 AND version = $2 AND removal_began_at IS NULL
         RETURNING id, slug, name, timezone, rate_limit, suspended, removal_began_at, removal_step,
                removed_events, removed_orders, removed_entries, version, created_at, updated_at",
        id.get(),
        expected,
        settings.slug,
        settings.name,
        settings.timezone,
        settings.rate_limit,
        settings.suspended
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(changed) = changed else { return Ok(None) };
    let response = respond(&changed.decode()?);
    finish(transaction, claim, response).await.map(Some)
}

/// Begins to remove a tenant if it still has the version `expected`, and stores the response under the key of its request. Returns
/// `None` if it has another one by now, or is gone.
pub async fn begin_removal(
    db: &mut PgConnection,
    id: TenantId,
    expected: i64,
    claim: Option<&IdempotencyClaim>,
    respond: impl Fn(&Tenant) -> StoredResponse,
) -> Result<Option<TenantWrite>, sqlx::Error> {
    let mut transaction = db.begin().await?;
    let begun = sqlx::query_as!(
        StoredTenant,
        "UPDATE tenants
         SET removal_began_at = clock_timestamp(), version = version + 1, updated_at = greatest(updated_at, clock_timestamp())
         WHERE id = $1 AND version = $2 AND removal_began_at IS NULL
         RETURNING id, slug, name, timezone, rate_limit, suspended, removal_began_at, removal_step,
                removed_events, removed_orders, removed_entries, version, created_at, updated_at",
        id.get(),
        expected,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(begun) = begun else { return Ok(None) };
    let response = respond(&begun.decode()?);
    finish(transaction, claim, response).await.map(Some)
}

/// Stores the response under the key, and commits; or neither, if the key is taken.
async fn finish(
    mut transaction: sqlx::Transaction<'_, sqlx::Postgres>,
    claim: Option<&IdempotencyClaim>,
    response: StoredResponse,
) -> Result<TenantWrite, sqlx::Error> {
    if let Some(claim) = claim
        && store_responses(&mut transaction, &[(claim, &response)]).await?.is_empty()
    {
        transaction.rollback().await?;
        return Ok(TenantWrite::KeyTaken);
    }
    transaction.commit().await?;
    Ok(TenantWrite::Written(response))
}

/// A row of `tenants`.
struct StoredTenant {
    id: i32,
    slug: String,
    name: String,
    timezone: String,
    rate_limit: Option<String>,
    suspended: bool,
    removal_began_at: Option<OffsetDateTime>,
    removal_step: Option<String>,
    removed_events: i64,
    removed_orders: i64,
    removed_entries: i64,
    version: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl StoredTenant {
    fn decode(self) -> Result<Tenant, sqlx::Error> {
        let removal = self.removal_began_at.map(|began_at| TenantRemoval {
            began_at,
            step: self.removal_step.unwrap_or_else(|| "waiting".to_owned()),
            events: self.removed_events,
            orders: self.removed_orders,
            entries: self.removed_entries,
        });
        Ok(Tenant {
            id: decode_tenant(self.id)?,
            slug: self.slug,
            name: self.name,
            timezone: self.timezone,
            rate_limit: self.rate_limit,
            suspended: self.suspended,
            removal,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}
