//! Removing tenants: what to do next is in the tenant's row, which is locked while a step is done.

use std::time::Duration;

use shared::domain::tenant::TenantId;
use sqlx::PgConnection;

/// What is removed, in this order: nothing that is still to come can bring back what is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalStep {
    /// The events of the log. The reconciler would publish again what has no history.
    Events,
    /// The orders and their lines.
    Orders,
    /// The history.
    History,
    /// Accounts, ended sessions, keys of requests, dead letters and cache debts.
    Rest,
    /// What Redis and the broker hold, and then the tenant itself.
    Outside,
}

/// A tenant that is being removed.
#[derive(Clone, Copy, Debug)]
pub struct Removal {
    /// Which.
    pub tenant: TenantId,
    /// What is removed now.
    pub step: RemovalStep,
    /// How far that has come.
    pub after: i64,
}

impl RemovalStep {
    const ALL: [Self; 5] = [Self::Events, Self::Orders, Self::History, Self::Rest, Self::Outside];

    /// The value of the column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Orders => "orders",
            Self::History => "history",
            Self::Rest => "rest",
            Self::Outside => "outside",
        }
    }

    /// The step after this one.
    pub fn next(self) -> Option<Self> {
        Self::ALL.into_iter().skip_while(|step| *step != self).nth(1)
    }
}

/// The tenants whose removal was ordered at least `grace` ago by the clock of the database, the first one first.
pub async fn list_removals(db: &mut PgConnection, grace: Duration) -> sqlx::Result<Vec<TenantId>> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM tenants WHERE removal_began_at <= clock_timestamp() - make_interval(secs => $1)
         ORDER BY removal_began_at, id",
        grace.as_secs_f64(),
    )
    .fetch_all(db)
    .await?;
    ids.into_iter().map(decode_tenant).collect()
}

/// Locks a tenant whose removal was ordered at least `grace` ago. `None` if another worker has locked it or it is gone.
pub async fn lock_removal(
    db: &mut PgConnection,
    tenant: TenantId,
    grace: Duration,
) -> sqlx::Result<Option<Removal>> {
    let row = sqlx::query!(
        "SELECT removal_step, removal_after FROM tenants
         WHERE id = $1 AND removal_began_at <= clock_timestamp() - make_interval(secs => $2) FOR UPDATE SKIP LOCKED",
        tenant.get(),
        grace.as_secs_f64(),
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let named = |step: &RemovalStep| row.removal_step.as_deref() == Some(step.as_str());
    let step = RemovalStep::ALL.into_iter().find(named).unwrap_or(RemovalStep::Events);
    Ok(Some(Removal { tenant, step, after: row.removal_after }))
}

fn decode_tenant(id: i32) -> sqlx::Result<TenantId> {
    TenantId::try_from(id).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Records how far a removal has come, and what is gone since.
pub async fn save_removal(
    db: &mut PgConnection,
    Removal { tenant, step, after }: Removal,
    gone: Gone,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tenants SET removal_step = $2, removal_after = $3, removed_events = removed_events + $4,
             removed_orders = removed_orders + $5, removed_entries = removed_entries + $6
         WHERE id = $1",
        tenant.get(),
        step.as_str(),
        after,
        gone.events,
        gone.orders,
        gone.entries,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How many rows a step has removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gone {
    /// Events of the log.
    pub events: i64,
    /// Orders.
    pub orders: i64,
    /// Entries of the history.
    pub entries: i64,
}

/// Whether none of the tenant's events waits to be published. While very many of all tenants wait, the answer is no.
pub async fn is_published(db: &mut PgConnection, tenant: TenantId) -> sqlx::Result<bool> {
    let published = sqlx::query_scalar!("SELECT log_is_published($1)", tenant.get()).fetch_one(db).await?;
    Ok(published.unwrap_or(false))
}

/// Removes the tenant's events of the next pages of the log. Returns the last of these pages, `None` if there is none, and how
/// many events were removed.
pub async fn remove_events(
    db: &mut PgConnection,
    tenant: TenantId,
    after: i64,
    pages: i32,
) -> sqlx::Result<(Option<i64>, i64)> {
    let row = sqlx::query!("SELECT last, removed FROM log_remove($1, $2, $3)", tenant.get(), after, pages)
        .fetch_one(db)
        .await?;
    Ok((row.last, row.removed.unwrap_or_default()))
}

/// Removes the tenant's events of which the log has no page any more. Returns how many.
pub async fn remove_forgotten_events(db: &mut PgConnection, tenant: TenantId) -> sqlx::Result<i64> {
    let removed = sqlx::query_scalar!("SELECT log_remove_forgotten($1)", tenant.get()).fetch_one(db).await?;
    Ok(removed.unwrap_or_default())
}

/// Removes the next orders with their lines, of those that were created from `after` on, in microseconds since 1970. Returns when the
/// last of them was created, `None` if there are none, and how many there were.
///
/// To begin where the step before has ended spares reading what it has removed, as long as that is not vacuumed.
pub async fn remove_orders(
    db: &mut PgConnection,
    tenant: TenantId,
    after: i64,
    most: i64,
) -> sqlx::Result<(Option<i64>, i64)> {
    let row = sqlx::query!(
        r#"WITH removed AS (
               DELETE FROM orders WHERE id = ANY (ARRAY(
                   SELECT id FROM orders
                   WHERE tenant_id = $1 AND created_at >= to_timestamp(0) + $2::bigint * interval '1 microsecond'
                   ORDER BY created_at LIMIT $3))
               RETURNING created_at
           )
           SELECT (extract(epoch FROM max(created_at)) * 1000000)::bigint AS last, count(*) AS "removed!" FROM removed"#,
        tenant.get(),
        after,
        most,
    )
    .fetch_one(db)
    .await?;
    Ok((row.last, row.removed))
}

/// Looks at the history of the next orders after a number, and removes what is the tenant's. Returns the last order that was
/// looked at, `None` if there is none, and how many entries were removed.
///
/// The history has no index by tenant: all of it is read once, by its key.
pub async fn remove_history(
    db: &mut PgConnection,
    tenant: TenantId,
    after: i64,
    most: i64,
) -> sqlx::Result<(Option<i64>, i64)> {
    let row = sqlx::query!(
        r#"WITH last AS MATERIALIZED (
               SELECT max(order_id) AS order_id
               FROM (SELECT order_id FROM order_history WHERE order_id > $2 ORDER BY order_id LIMIT $3) AS next
           ), removed AS (
               DELETE FROM order_history h USING last l
               WHERE h.order_id > $2 AND h.order_id <= l.order_id AND h.tenant_id = $1 RETURNING 1
           )
           SELECT (SELECT order_id FROM last) AS last, (SELECT count(*) FROM removed) AS "removed!""#,
        tenant.get(),
        after,
        most,
    )
    .fetch_one(db)
    .await?;
    Ok((row.last, row.removed))
}

/// Removes what is little, or soon gone by itself.
pub async fn remove_rest(db: &mut PgConnection, tenant: TenantId) -> sqlx::Result<()> {
    let tenant = tenant.get();
    sqlx::query!("DELETE FROM accounts WHERE tenant_id = $1", tenant).execute(&mut *db).await?;
    sqlx::query!("DELETE FROM ended_sessions WHERE tenant_id = $1", tenant).execute(&mut *db).await?;
    sqlx::query!("DELETE FROM dead_letters WHERE tenant_id = $1", tenant).execute(&mut *db).await?;
    sqlx::query!("DELETE FROM cache_debts WHERE tenant_id = $1", tenant).execute(&mut *db).await?;
    // Keys of tenants other than the default one begin with its number and a space, which no client's key has.
    sqlx::query!("DELETE FROM idempotency_keys WHERE starts_with(key, $1::integer::text || ' ')", tenant)
        .execute(&mut *db)
        .await?;
    Ok(())
}

/// Removes the tenant itself.
pub async fn remove_tenant(db: &mut PgConnection, tenant: TenantId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM tenants WHERE id = $1", tenant.get()).execute(db).await?;
    Ok(())
}
