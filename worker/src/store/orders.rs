//! Reads orders as they are now, each with its lines in one statement, so that both are of one version.

use shared::domain::order::{CustomerId, Money, Order, OrderId, OrderLine};
use sqlx::{PgConnection, types::Json};
use time::{Date, OffsetDateTime};

use super::{FEW_ROWS, WHOLE_TABLE, run_within};

/// Loads the orders among `ids` that exist.
pub async fn load_orders(connection: &mut PgConnection, ids: &[OrderId]) -> sqlx::Result<Vec<Order>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.get()).collect();
    let statement = sqlx::query_as!(
        OrderRow,
        r#"SELECT id, customer_id, order_date, status, total_amount, version, created_at, updated_at, reference, metadata,
                  -- All columns of a line, by their names; amounts are text in JSON.
                  (SELECT json_agg(to_jsonb(line) || jsonb_build_object('unit_price', unit_price::text) ORDER BY position)
                   FROM order_lines line WHERE line.order_id = orders.id) AS "lines: Json<Vec<OrderLine>>"
           FROM orders WHERE id = ANY($1)"#,
        &ids
    );
    let rows = run_within(FEW_ROWS, statement.fetch_all(connection)).await?;
    rows.into_iter().map(OrderRow::into_order).collect()
}

/// Loads the ids of the next `limit` orders after `after`.
pub async fn load_ids_after(
    connection: &mut PgConnection,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<OrderId>> {
    let statement =
        sqlx::query_scalar!("SELECT id FROM orders WHERE id > $1 ORDER BY id LIMIT $2", after, limit);
    let ids = run_within(FEW_ROWS, statement.fetch_all(connection)).await?;
    Ok(ids.into_iter().filter_map(|id| OrderId::try_from(id).ok()).collect())
}

/// Counts all orders.
pub async fn count_orders(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let statement = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM orders"#);
    run_within(WHOLE_TABLE, statement.fetch_one(connection)).await
}

struct OrderRow {
    id: i64,
    customer_id: i64,
    order_date: Date,
    status: String,
    total_amount: rust_decimal::Decimal,
    version: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    reference: Option<String>,
    metadata: String,
    lines: Option<Json<Vec<OrderLine>>>,
}

impl OrderRow {
    fn into_order(self) -> sqlx::Result<Order> {
        Ok(Order {
            id: OrderId::try_from(self.id).map_err(undecodable)?,
            customer_id: CustomerId::try_from(self.customer_id).map_err(undecodable)?,
            order_date: self.order_date,
            status: self.status.parse().map_err(undecodable)?,
            total_amount: Money::new(self.total_amount).map_err(undecodable)?,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            lines: self.lines.map(|lines| lines.0).unwrap_or_default(),
            reference: self.reference,
            metadata: serde_json::from_str(&self.metadata).map_err(undecodable)?,
        })
    }
}

fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}
