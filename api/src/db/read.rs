//! Reading orders by their ids.

use shared::domain::order::{Order, OrderId, OrderLine};
use sqlx::{PgConnection, types::Decimal};
use time::{Date, OffsetDateTime};

use super::{customer, impossible, money, raw_ids};

/// The orders with these ids that exist, with their lines, in no particular order: one statement, one snapshot.
pub async fn orders(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Order>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT o.id, o.customer_id, o.order_date, o.status, o.total_amount, o.version, o.created_at, o.updated_at,
                  l.ids AS line_ids, l.positions, l.products, l.quantities, l.prices AS "prices: Vec<Decimal>"
           FROM orders o, LATERAL (
               SELECT array_agg(id) AS ids, array_agg(position) AS positions, array_agg(product_id) AS products,
                      array_agg(quantity) AS quantities, array_agg(unit_price) AS prices
               FROM order_lines WHERE order_id = o.id
           ) AS l
           WHERE o.id = ANY($1)"#,
        &raw_ids(ids),
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(Order::try_from)
    .collect()
}

/// An order's row, with a column of its lines in each array, in any order; null where there are none.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) customer_id: i64,
    pub(super) order_date: Date,
    pub(super) status: String,
    pub(super) total_amount: Decimal,
    pub(super) version: i64,
    pub(super) created_at: OffsetDateTime,
    pub(super) updated_at: OffsetDateTime,
    pub(super) line_ids: Option<Vec<i64>>,
    pub(super) positions: Option<Vec<i16>>,
    pub(super) products: Option<Vec<i64>>,
    pub(super) quantities: Option<Vec<i32>>,
    pub(super) prices: Option<Vec<Decimal>>,
}

impl Row {
    /// The lines in the order in which they were given. Sorted here, because PostgreSQL would sort for each order
    /// what mostly is in order already.
    fn lines(&mut self) -> Result<Vec<OrderLine>, sqlx::Error> {
        let columns = (
            self.line_ids.take().unwrap_or_default(),
            self.products.take().unwrap_or_default(),
            self.quantities.take().unwrap_or_default(),
            self.prices.take().unwrap_or_default(),
        );
        let mut lines: Vec<(i16, OrderLine)> = self
            .positions
            .take()
            .unwrap_or_default()
            .into_iter()
            .zip(columns.0.into_iter().zip(columns.1))
            .zip(columns.2.into_iter().zip(columns.3))
            .map(|((position, (id, product)), (quantity, price))| {
                let id = id.try_into().map_err(|_| impossible("order_lines.id"))?;
                let product_id = product.try_into().map_err(|_| impossible("product_id"))?;
                let unit_price = money(price, "unit_price")?;
                Ok((position, OrderLine { id, product_id, quantity, unit_price }))
            })
            .collect::<Result<_, sqlx::Error>>()?;
        lines.sort_unstable_by_key(|(position, _)| *position);
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }
}

impl TryFrom<Row> for Order {
    type Error = sqlx::Error;

    fn try_from(mut row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.id.try_into().map_err(|_| impossible("id"))?,
            customer_id: customer(row.customer_id)?,
            order_date: row.order_date,
            status: row.status.parse().map_err(|_| impossible("status"))?,
            total_amount: money(row.total_amount, "total_amount")?,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            lines: row.lines()?,
        })
    }
}
