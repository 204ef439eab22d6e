//! Ids, taken from the sequences in blocks, so that an answer can be written before its row is.

use sqlx::PgConnection;

/// Ids of orders and of lines that nobody else will get.
#[derive(Debug, Default)]
pub struct Ids {
    /// For orders, ascending.
    pub orders: Vec<i64>,
    /// For lines, ascending.
    pub lines: Vec<i64>,
}

/// Takes ids in one round trip. Another process may take some in between, so a block has gaps.
pub async fn take_ids(db: &mut PgConnection, orders: i32, lines: i32) -> Result<Ids, sqlx::Error> {
    let taken = sqlx::query!(
        r#"SELECT ARRAY(SELECT nextval('orders_id_seq') FROM generate_series(1, $1)) AS "orders!",
                  ARRAY(SELECT nextval('order_lines_id_seq') FROM generate_series(1, $2)) AS "lines!""#,
        orders,
        lines,
    )
    .fetch_one(db)
    .await?;
    Ok(Ids { orders: taken.orders, lines: taken.lines })
}
