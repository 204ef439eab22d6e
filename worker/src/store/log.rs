//! The retained outbox log, for sending events again.

use shared::domain::{event::Envelope, order::OrderId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{FEW_ROWS, WHOLE_TABLE, bounded};

/// Which events of the log.
#[derive(Clone, Copy, Debug)]
pub enum Selection {
    /// Those recorded at or after this time.
    From(OffsetDateTime),
    /// Those of one order.
    Order(OrderId),
}

impl Selection {
    const fn parts(self) -> (Option<OffsetDateTime>, Option<i64>) {
        match self {
            Self::From(time) => (Some(time), None),
            Self::Order(id) => (None, Some(id.get())),
        }
    }
}

/// An event of the log.
#[derive(Debug)]
pub struct Logged {
    /// Its place.
    pub id: i64,
    /// As it was sent.
    pub envelope: Envelope,
}

/// How many events there are, and the last one's place. What is recorded later reaches the broker by itself.
pub async fn extent(connection: &mut PgConnection, selection: Selection) -> sqlx::Result<(i64, i64)> {
    let (from, order) = selection.parts();
    let statement = sqlx::query!(
        r#"SELECT count(*) AS "count!", coalesce(max(id), 0) AS "last!" FROM outbox
           WHERE ($1::timestamptz IS NULL OR recorded_at >= $1 AND day >= ($1 AT TIME ZONE 'UTC')::date)
             AND ($2::bigint IS NULL OR order_id = $2)"#,
        from,
        order,
    );
    let row = bounded(WHOLE_TABLE, statement.fetch_one(connection)).await?;
    Ok((row.count, row.last))
}

/// The next events beyond `after` and up to `last`, in id order: per order, that is the order of versions.
pub async fn page(
    connection: &mut PgConnection,
    selection: Selection,
    after: i64,
    last: i64,
    most: i64,
) -> sqlx::Result<Vec<Logged>> {
    let (from, order) = selection.parts();
    let statement = sqlx::query_as!(
        Row,
        r#"SELECT id, event_id, event_type, order_id, version, payload FROM outbox
           WHERE id > $3 AND id <= $4
             AND ($1::timestamptz IS NULL OR recorded_at >= $1 AND day >= ($1 AT TIME ZONE 'UTC')::date)
             AND ($2::bigint IS NULL OR order_id = $2)
           ORDER BY id LIMIT $5"#,
        from,
        order,
        after,
        last,
        most,
    );
    let rows = bounded(FEW_ROWS, statement.fetch_all(connection)).await?;
    Ok(rows.into_iter().map(Row::into_logged).collect())
}

/// The events of these versions of orders, in id order.
pub async fn of_versions(
    connection: &mut PgConnection,
    versions: &[(OrderId, i64)],
) -> sqlx::Result<Vec<Logged>> {
    let (order_ids, versions): (Vec<i64>, Vec<i64>) =
        versions.iter().map(|(order, version)| (order.get(), *version)).unzip();
    let statement = sqlx::query_as!(
        Row,
        r#"SELECT id, event_id, event_type, order_id, version, payload FROM outbox
           JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (order_id, version) USING (order_id, version)
           ORDER BY id"#,
        &order_ids,
        &versions,
    );
    let rows = bounded(FEW_ROWS, statement.fetch_all(connection)).await?;
    Ok(rows.into_iter().map(Row::into_logged).collect())
}

struct Row {
    id: i64,
    event_id: Uuid,
    event_type: String,
    order_id: i64,
    version: i64,
    payload: String,
}

impl Row {
    fn into_logged(self) -> Logged {
        Logged {
            id: self.id,
            envelope: Envelope {
                id: self.event_id,
                event_type: self.event_type,
                key: self.order_id,
                sequence: self.version,
                body: self.payload,
            },
        }
    }
}
