//! Rows of `order_history`.

use shared::domain::{event::Event, order::OrderId};
use sqlx::PgConnection;

use super::{FEW_ROWS, bounded};

/// Inserts a row for each event, by one statement with this ending, and gives how many were inserted.
macro_rules! insert_rows {
    ($connection:expr, $events:expr, $($ending:tt)*) => {{
        let rows = Rows::of($events);
        let inserted = sqlx::query!(
            "INSERT INTO order_history
                 (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
             SELECT order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at
             FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::uuid[],
                         $8::timestamptz[])
                  AS row (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)"
                $($ending)*,
            &rows.order_ids,
            &rows.versions,
            &rows.actions as _,
            &rows.changes as _,
            &rows.customer_ids,
            &rows.performed_by,
            &rows.event_ids,
            &rows.occurred_at,
        );
        Ok(inserted.execute($connection).await?.rows_affected())
    }};
}

/// Records versions in one statement and says how many were new. One that is recorded already stays as it is.
pub async fn insert(connection: &mut PgConnection, events: &[&Event]) -> sqlx::Result<u64> {
    insert_rows!(connection, events, + " ON CONFLICT (order_id, version) DO NOTHING")
}

/// Records versions none of which is recorded yet; a unique violation where one is. It takes PostgreSQL three quarters of
/// [`insert`], which looks for each version before it writes it and announces each row twice in the write-ahead log.
pub async fn insert_new(connection: &mut PgConnection, events: &[&Event]) -> sqlx::Result<u64> {
    insert_rows!(connection, events,)
}

/// Makes a recorded version say what its event says, or records it. For repair only.
pub async fn correct(connection: &mut PgConnection, event: &Event) -> sqlx::Result<()> {
    let (order, version) = (event.data.order_id.get(), event.data.version);
    let delete =
        sqlx::query!("DELETE FROM order_history WHERE order_id = $1 AND version = $2", order, version);
    bounded(FEW_ROWS, delete.execute(&mut *connection)).await?;
    bounded(FEW_ROWS, insert(connection, &[event])).await?;
    Ok(())
}

/// How many of these versions are recorded.
pub async fn count(connection: &mut PgConnection, versions: &[(OrderId, i64)]) -> sqlx::Result<i64> {
    let (order_ids, versions): (Vec<i64>, Vec<i64>) =
        versions.iter().map(|(order, version)| (order.get(), *version)).unzip();
    let statement = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM order_history
           JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (order_id, version) USING (order_id, version)"#,
        &order_ids,
        &versions,
    );
    bounded(FEW_ROWS, statement.fetch_one(connection)).await
}

/// A batch by columns, as `unnest` takes it.
#[derive(Default)]
struct Rows<'a> {
    order_ids: Vec<i64>,
    versions: Vec<i64>,
    actions: Vec<&'static str>,
    changes: Vec<&'a str>,
    customer_ids: Vec<i64>,
    performed_by: Vec<i64>,
    event_ids: Vec<uuid::Uuid>,
    occurred_at: Vec<time::OffsetDateTime>,
}

impl<'a> Rows<'a> {
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
    }
}
