//! Reads orders as they are now, each with its lines in one statement, so that both are of one version.

use shared::domain::{
    order::{CustomerId, Money, Order, OrderId, OrderKey, OrderLine},
    tenant::TenantId,
};
use sqlx::{PgConnection, types::Json};
use time::{Date, OffsetDateTime};

use super::{FEW_ROWS, WHOLE_TABLE, run_within};

/// Loads those of these orders that exist.
pub async fn load_orders(connection: &mut PgConnection, orders: &[OrderKey]) -> sqlx::Result<Vec<Order>> {
    let (tenants, ids): (Vec<i32>, Vec<i64>) =
        orders.iter().map(|order| (order.tenant.get(), order.id.get())).unzip();
    let statement = sqlx::query_as!(
        OrderRow,
        r#"SELECT id, tenant_id, customer_id, order_date, status, total_amount, version, created_at, updated_at, reference, metadata,
                  -- All columns of a line, by their names; amounts are text in JSON.
                  (SELECT json_agg(to_jsonb(line) || jsonb_build_object('unit_price', unit_price::text) ORDER BY position)
                   FROM order_lines line WHERE line.order_id = orders.id AND line.tenant_id = orders.tenant_id) AS "lines: Json<Vec<OrderLine>>"
           FROM orders JOIN unnest($1::integer[], $2::bigint[]) AS wanted (tenant_id, id) USING (tenant_id, id)"#,
        &tenants,
        &ids,
    );
    let rows = run_within(FEW_ROWS, statement.fetch_all(connection)).await?;
    rows.into_iter().map(OrderRow::into_order).collect()
}

/// Loads the keys of the next `limit` orders of all tenants after the id `after`.
pub async fn load_keys_after(
    connection: &mut PgConnection,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<OrderKey>> {
    let statement =
        sqlx::query!("SELECT id, tenant_id FROM orders WHERE id > $1 ORDER BY id LIMIT $2", after, limit);
    let rows = run_within(FEW_ROWS, statement.fetch_all(connection)).await?;
    rows.into_iter().map(|row| decode_key(row.tenant_id, row.id)).collect()
}

/// Counts all orders of all tenants.
pub async fn count_orders(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let statement = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM orders"#);
    run_within(WHOLE_TABLE, statement.fetch_one(connection)).await
}

struct OrderRow {
    id: i64,
    tenant_id: i32,
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
        let OrderKey { tenant, id } = decode_key(self.tenant_id, self.id)?;
        Ok(Order {
            id,
            tenant_id: tenant,
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

fn decode_key(tenant: i32, id: i64) -> sqlx::Result<OrderKey> {
    Ok(OrderKey {
        tenant: TenantId::try_from(tenant).map_err(undecodable)?,
        id: OrderId::try_from(id).map_err(undecodable)?,
    })
}

fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}
