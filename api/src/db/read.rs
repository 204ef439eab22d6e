//! Reading orders: the one list of the columns of an order and its lines, and the row that they are read into by name.

use std::collections::HashMap;

use shared::domain::order::{Order, OrderKey, OrderLine};
use sqlx::{PgConnection, types::Decimal};
use time::{Date, OffsetDateTime};

use super::{
    columns::raw_keys,
    decode::{decode_customer, decode_money, decode_tenant, impossible},
};

/// The columns that [`OrderRow`] is read from: of an order `o`, and of its lines in [`order_lines!`].
macro_rules! order_columns {
    () => {
        "o.id, o.tenant_id, o.customer_id, o.order_date, o.status, o.total_amount, o.version, o.created_at, o.updated_at, \
         o.reference, o.metadata, l.line_ids, l.positions, l.products, l.quantities, l.prices"
    };
}

/// The lines of the order `o` as one row `l`, with an array for each column.
macro_rules! order_lines {
    () => {
        "LATERAL ( \
             SELECT array_agg(id) AS line_ids, array_agg(position) AS positions, array_agg(product_id) AS products, \
                    array_agg(quantity) AS quantities, array_agg(unit_price) AS prices \
             FROM order_lines WHERE order_id = o.id AND tenant_id = o.tenant_id \
         ) AS l"
    };
}

pub(super) use order_columns;
pub(super) use order_lines;

/// The query of [`load_orders`].
pub const ORDERS_BY_KEY: &str = concat!(
    "SELECT ",
    order_columns!(),
    " FROM unnest($1::integer[], $2::bigint[]) AS wanted (tenant_id, id) \
      JOIN orders o ON o.tenant_id = wanted.tenant_id AND o.id = wanted.id, ",
    order_lines!(),
);

/// Reads those of these orders that exist, with their lines: one statement, one snapshot.
pub async fn load_orders(
    db: &mut PgConnection,
    orders: &[OrderKey],
) -> Result<HashMap<OrderKey, Order>, sqlx::Error> {
    let (tenants, ids) = raw_keys(orders);
    let rows: Vec<OrderRow> = sqlx::query_as(ORDERS_BY_KEY).bind(tenants).bind(ids).fetch_all(db).await?;
    let orders = rows.into_iter().map(Order::try_from);
    orders.map(|order| order.map(|order| (order.key(), order))).collect()
}

/// An order's row, with an array for each column of its lines, in any order; null if there are none.
#[derive(sqlx::FromRow)]
pub(super) struct OrderRow {
    id: i64,
    tenant_id: i32,
    customer_id: i64,
    order_date: Date,
    status: String,
    total_amount: Decimal,
    version: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    reference: Option<String>,
    metadata: String,
    line_ids: Option<Vec<i64>>,
    positions: Option<Vec<i16>>,
    products: Option<Vec<i64>>,
    quantities: Option<Vec<i32>>,
    prices: Option<Vec<Decimal>>,
}

impl OrderRow {
    /// The lines in the order in which they were given. They are sorted here, because PostgreSQL would sort for each order
    /// what mostly is in order already.
    fn take_lines(&mut self) -> Result<Vec<OrderLine>, sqlx::Error> {
        let positions = self.positions.take().unwrap_or_default();
        let ids = self.line_ids.take().unwrap_or_default();
        let products = self.products.take().unwrap_or_default();
        let quantities = self.quantities.take().unwrap_or_default();
        let prices = self.prices.take().unwrap_or_default();
        let mut lines: Vec<(i16, OrderLine)> = positions
            .into_iter()
            .zip(ids.into_iter().zip(products))
            .zip(quantities.into_iter().zip(prices))
            .map(|((position, (id, product)), (quantity, price))| {
                let id = id.try_into().map_err(|_| impossible("order_lines.id"))?;
                let product_id = product.try_into().map_err(|_| impossible("product_id"))?;
                let unit_price = decode_money(price, "unit_price")?;
                Ok((position, OrderLine { id, product_id, quantity, unit_price }))
            })
            .collect::<Result<_, sqlx::Error>>()?;
        lines.sort_unstable_by_key(|(position, _)| *position);
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }
}

impl TryFrom<OrderRow> for Order {
    type Error = sqlx::Error;

    fn try_from(mut row: OrderRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.id.try_into().map_err(|_| impossible("id"))?,
            tenant_id: decode_tenant(row.tenant_id)?,
            customer_id: decode_customer(row.customer_id)?,
            order_date: row.order_date,
            status: row.status.parse().map_err(|_| impossible("status"))?,
            total_amount: decode_money(row.total_amount, "total_amount")?,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            lines: row.take_lines()?,
            reference: row.reference,
            metadata: serde_json::from_str(&row.metadata).map_err(|_| impossible("metadata"))?,
        })
    }
}
