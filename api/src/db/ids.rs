//! Ids, taken from the sequences in blocks, so that a response can be built before its row is written.

use sqlx::PgConnection;

/// Ids of orders and of lines that no other process gets.
#[derive(Debug, Default)]
pub struct ReservedIds {
    /// For orders, ascending.
    pub orders: Vec<i64>,
    /// For lines, ascending.
    pub lines: Vec<i64>,
}

/// Reserves ids in one round trip. Another process can reserve some in between, so a block has gaps.
pub async fn reserve_ids(db: &mut PgConnection, orders: i32, lines: i32) -> Result<ReservedIds, sqlx::Error> {
    let taken = sqlx::query!(
        r#"SELECT ARRAY(SELECT nextval('orders_id_seq') FROM generate_series(1, $1)) AS "orders!",
                  ARRAY(SELECT nextval('order_lines_id_seq') FROM generate_series(1, $2)) AS "lines!""#,
        orders,
        lines,
    )
    .fetch_one(db)
    .await?;
    Ok(ReservedIds { orders: taken.orders, lines: taken.lines })
}
