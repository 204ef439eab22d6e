//! Reads the retained outbox log, to send events again.

use shared::domain::{event::Envelope, order::OrderId, tenant::TenantId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{FEW_ROWS, WHOLE_TABLE, run_within};

/// The bytes after which a page of events ends.
const PAGE_BYTES: i64 = 4 * 1024 * 1024;

/// The events of the log to read.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// Which of all.
    pub events: Events,
    /// Only those of this tenant, if there is one here.
    pub tenant: Option<TenantId>,
}

/// Which events of the log.
#[derive(Clone, Copy, Debug)]
pub enum Events {
    /// Those recorded at or after this time.
    From(OffsetDateTime),
    /// Those of one order.
    Order(OrderId),
}

impl Selection {
    fn parts(self) -> (Option<OffsetDateTime>, Option<i64>, Option<i32>) {
        let tenant = self.tenant.map(TenantId::get);
        match self.events {
            Events::From(time) => (Some(time), None, tenant),
            Events::Order(id) => (None, Some(id.get()), tenant),
        }
    }
}

/// An event of the log.
#[derive(Debug)]
pub struct LoggedEvent {
    /// Its place in the log.
    pub id: i64,
    /// As it was sent.
    pub envelope: Envelope,
}

/// Counts the events, and returns the place of the last one. Those that are logged later reach the broker by themselves.
pub async fn count_events(connection: &mut PgConnection, selection: Selection) -> sqlx::Result<(i64, i64)> {
    let (from, order, tenant) = selection.parts();
    let statement = sqlx::query!(
        r#"SELECT count(*) AS "count!", coalesce(max(id), 0) AS "last!" FROM outbox
           WHERE ($1::timestamptz IS NULL OR recorded_at >= $1 AND day >= ($1 AT TIME ZONE 'UTC')::date)
             AND ($2::bigint IS NULL OR order_id = $2)
             AND ($3::integer IS NULL OR tenant_id = $3)"#,
        from,
        order,
        tenant,
    );
    let row = run_within(WHOLE_TABLE, statement.fetch_one(connection)).await?;
    Ok((row.count, row.last))
}

/// Loads up to `limit` events after the place `after` and up to `last`, fewer if they are large, in id order: per order, that is the order
/// of versions.
pub async fn load_events(
    connection: &mut PgConnection,
    selection: Selection,
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<LoggedEvent>> {
    let (from, order, tenant) = selection.parts();
    let statement = sqlx::query_as!(
        OutboxRow,
        r#"SELECT id, event_id, event_type, order_id, version, payload
           FROM (
               SELECT *, sum(octet_length(payload)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
               FROM (
                   SELECT id, event_id, event_type, order_id, version, payload FROM outbox
                   WHERE id > $4 AND id <= $5
                     AND ($1::timestamptz IS NULL OR recorded_at >= $1 AND day >= ($1 AT TIME ZONE 'UTC')::date)
                     AND ($2::bigint IS NULL OR order_id = $2)
                     AND ($3::integer IS NULL OR tenant_id = $3)
                   ORDER BY id LIMIT $6
               ) AS next
           ) AS page
           WHERE coalesce(bytes_before, 0) < $7
           ORDER BY id"#,
        from,
        order,
        tenant,
        after,
        last,
        limit,
        PAGE_BYTES,
    );
    let rows = run_within(FEW_ROWS, statement.fetch_all(connection)).await?;
    Ok(rows.into_iter().map(OutboxRow::into_logged_event).collect())
}

/// Loads the events of these versions of orders, in id order.
pub async fn load_versions(
    connection: &mut PgConnection,
    versions: &[(OrderId, i64)],
) -> sqlx::Result<Vec<LoggedEvent>> {
    let (order_ids, versions): (Vec<i64>, Vec<i64>) =
        versions.iter().map(|(order, version)| (order.get(), *version)).unzip();
    let statement = sqlx::query_as!(
        OutboxRow,
        r#"SELECT id, event_id, event_type, order_id, version, payload FROM outbox
           JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (order_id, version) USING (order_id, version)
           ORDER BY id"#,
        &order_ids,
        &versions,
    );
    let rows = run_within(FEW_ROWS, statement.fetch_all(connection)).await?;
    Ok(rows.into_iter().map(OutboxRow::into_logged_event).collect())
}

struct OutboxRow {
    id: i64,
    event_id: Uuid,
    event_type: String,
    order_id: i64,
    version: i64,
    payload: String,
}

impl OutboxRow {
    fn into_logged_event(self) -> LoggedEvent {
        LoggedEvent {
            id: self.id,
            envelope: Envelope {
                id: self.event_id,
                event_type: self.event_type,
                key: self.order_id,
                sequence: self.version,
                position: None,
                body: self.payload,
            },
        }
    }
}
