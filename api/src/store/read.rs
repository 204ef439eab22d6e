//! Reading orders by their ids.

use shared::order::{Order, OrderId, OrderLine};
use sqlx::{PgConnection, types::Decimal};
use time::{Date, OffsetDateTime};

use super::{customer, impossible, money, raw_ids};

/// The orders with these ids that exist, with their lines, in no particular order: one statement, one snapshot.
pub async fn orders(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Order>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT o.id, o.customer_id, o.order_date, o.status, o.total_amount, o.version, o.created_at, o.updated_at,
                  l.ids AS "line_ids!", l.products AS "products!", l.quantities AS "quantities!",
                  l.prices AS "prices!: Vec<Decimal>"
           FROM orders o, LATERAL (
               SELECT coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(product_id), '{}') AS products,
                      coalesce(array_agg(quantity), '{}') AS quantities,
                      coalesce(array_agg(unit_price), '{}') AS prices
               FROM (SELECT * FROM order_lines WHERE order_id = o.id ORDER BY position) AS ordered
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

/// An order's row, with a column of its lines in each array.
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
    pub(super) line_ids: Vec<i64>,
    pub(super) products: Vec<i64>,
    pub(super) quantities: Vec<i32>,
    pub(super) prices: Vec<Decimal>,
}

impl TryFrom<Row> for Order {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let lines =
            row.line_ids.into_iter().zip(row.products).zip(row.quantities.into_iter().zip(row.prices));
        Ok(Self {
            id: row.id.try_into().map_err(|_| impossible("id"))?,
            customer_id: customer(row.customer_id)?,
            order_date: row.order_date,
            status: row.status.parse().map_err(|_| impossible("status"))?,
            total_amount: money(row.total_amount, "total_amount")?,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            lines: lines
                .map(|((id, product), (quantity, price))| {
                    Ok(OrderLine {
                        id: id.try_into().map_err(|_| impossible("order_lines.id"))?,
                        product_id: product.try_into().map_err(|_| impossible("product_id"))?,
                        quantity,
                        unit_price: money(price, "unit_price")?,
                    })
                })
                .collect::<Result<_, sqlx::Error>>()?,
        })
    }
}
