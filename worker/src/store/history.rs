//! Rows of `order_history`.

use shared::domain::{event::Event, order::OrderId, tenant::TenantId};
use sqlx::PgConnection;

use super::{FEW_ROWS, run_within};

/// Inserts a row for each event in one statement with this ending, except for those of tenants that were removed: an event that
/// comes late leaves nothing of them. Returns how many were inserted.
macro_rules! insert_rows {
    ($connection:expr, $events:expr, $($ending:tt)*) => {{
        let rows = HistoryColumns::of($events);
        let inserted = sqlx::query!(
            "INSERT INTO order_history
                 (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at, tenant_id,
                  performed_by_tenant)
             SELECT order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at, tenant_id,
                    performed_by_tenant
             FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::uuid[],
                         $8::timestamptz[], $9::integer[], $10::integer[])
                  AS row (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at, tenant_id,
                          performed_by_tenant)
             -- Tenant 1 cannot be removed.
             WHERE tenant_id = 1
                OR EXISTS (SELECT FROM tenants t WHERE t.id = tenant_id AND t.removal_began_at IS NULL)"
                $($ending)*,
            &rows.order_ids,
            &rows.versions,
            &rows.actions as _,
            &rows.changes as _,
            &rows.customer_ids,
            &rows.performed_by,
            &rows.event_ids,
            &rows.occurred_at,
            &rows.tenants,
            &rows.performed_by_tenants as _,
        );
        Ok(inserted.execute($connection).await?.rows_affected())
    }};
}

/// Records versions in one statement and returns how many were new. A version that is already recorded stays as it is.
pub async fn insert_versions(connection: &mut PgConnection, events: &[&Event]) -> sqlx::Result<u64> {
    insert_rows!(connection, events, + " ON CONFLICT (order_id, version) DO NOTHING")
}

/// Records versions none of which is recorded yet; a unique violation if one is. It costs PostgreSQL three quarters of
/// [`insert_versions`], which looks for each version before it writes it and announces each row twice in the write-ahead log.
pub async fn insert_new_versions(connection: &mut PgConnection, events: &[&Event]) -> sqlx::Result<u64> {
    insert_rows!(connection, events,)
}

/// Replaces a recorded version by what its event says, even if it is recorded for another tenant. For repair only.
pub async fn replace_version(connection: &mut PgConnection, event: &Event) -> sqlx::Result<()> {
    let (order, version) = (event.data.order_id.get(), event.data.version);
    let delete =
        sqlx::query!("DELETE FROM order_history WHERE order_id = $1 AND version = $2", order, version);
    run_within(FEW_ROWS, delete.execute(&mut *connection)).await?;
    run_within(FEW_ROWS, insert_versions(connection, &[event])).await?;
    Ok(())
}

/// Counts how many of these versions are recorded.
pub async fn count_recorded(connection: &mut PgConnection, versions: &[(OrderId, i64)]) -> sqlx::Result<i64> {
    let (order_ids, versions): (Vec<i64>, Vec<i64>) =
        versions.iter().map(|(order, version)| (order.get(), *version)).unzip();
    let statement = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM order_history
           JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (order_id, version) USING (order_id, version)"#,
        &order_ids,
        &versions,
    );
    run_within(FEW_ROWS, statement.fetch_one(connection)).await
}

/// The columns of a batch, as `unnest` takes them.
#[derive(Default)]
struct HistoryColumns<'a> {
    order_ids: Vec<i64>,
    versions: Vec<i64>,
    actions: Vec<&'static str>,
    changes: Vec<&'a str>,
    customer_ids: Vec<i64>,
    performed_by: Vec<i64>,
    event_ids: Vec<uuid::Uuid>,
    occurred_at: Vec<time::OffsetDateTime>,
    tenants: Vec<i32>,
    performed_by_tenants: Vec<Option<i32>>,
}

impl<'a> HistoryColumns<'a> {
    fn of(events: &[&'a Event]) -> Self {
        let mut rows = Self::default();
        for event in events {
            rows.push(event);
        }
        rows
    }

    fn push(&mut self, event: &'a Event) {
        let data = &event.data;
        self.order_ids.push(data.order_id.get());
        self.versions.push(data.version);
        self.actions.push(event.event_type.action());
        self.changes.push(data.changes.json());
        self.customer_ids.push(data.customer_id.get());
        self.performed_by.push(data.performed_by.get());
        self.event_ids.push(event.id);
        self.occurred_at.push(event.time);
        self.tenants.push(event.tenant().get());
        self.performed_by_tenants.push(data.performed_by_tenant.map(TenantId::get));
    }
}
