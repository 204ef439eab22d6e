//! The list: newest first, by offset or from a position, with any combination of filters.
//!
//! The statement is put together from fixed pieces, so that what is not asked for is not in it: a condition such as
//! `$1 IS NULL OR status = $1` would hide the choice from the planner.

use shared::domain::order::{CustomerId, Money, Order, OrderId, OrderStatus, ProductId};
use sqlx::{FromRow as _, PgConnection, Postgres, QueryBuilder, Row as _};
use time::{Date, OffsetDateTime};

use super::read::Row;

/// `total` is counted up to here; from here on it says "at least so many". It is as far as pages reach, too.
pub const COUNTED: i64 = 10_000;
/// Where a filter matches rarely, `total` looks at the newest so many orders (or order lines of a product) only, so
/// that it never costs a scan of everything.
pub const LOOKED_AT: i64 = 50_000;

/// What is asked for. All of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The owner; `None` is everybody.
    pub customer: Option<CustomerId>,
    /// The status.
    pub status: Option<OrderStatus>,
    /// A product that one of the lines orders.
    pub product: Option<ProductId>,
    /// The first order date.
    pub date_from: Option<Date>,
    /// The last order date.
    pub date_to: Option<Date>,
    /// The lowest total.
    pub min_total: Option<Money>,
    /// The highest total.
    pub max_total: Option<Money>,
}

/// Where in the list an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// Its id, which decides among orders of the same time.
    pub id: OrderId,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After so many orders.
    Offset(i64),
    /// After this order, or after where it stood.
    After(Position),
}

/// A page of the list.
#[derive(Debug)]
pub struct Page {
    /// The orders, newest first.
    pub orders: Vec<Order>,
    /// Whether more follow.
    pub has_next: bool,
    /// How many match, where the page begins by an offset: exact below [`COUNTED`], and among the newest
    /// [`LOOKED_AT`] where there are filters.
    pub total: Option<i64>,
}

/// Reads a page, and its total where it begins by an offset, in one round trip.
pub async fn list(
    db: &mut PgConnection,
    filter: &Filter,
    start: Start,
    size: i64,
) -> Result<Page, sqlx::Error> {
    let counts = matches!(start, Start::Offset(_));
    let mut query = QueryBuilder::new("");
    push_page(&mut query, filter, start, size, counts);
    let rows = query.build().persistent(filter.is_plain()).fetch_all(&mut *db).await?;
    let total = match (counts, rows.first()) {
        (false, _) => None,
        (true, Some(row)) => Some(row.try_get("total")?),
        // No order to tell the total beside.
        (true, None) => Some(count(db, filter).await?),
    };
    let mut orders: Vec<Order> =
        rows.iter().map(|row| Row::from_row(row).and_then(Order::try_from)).collect::<Result<_, _>>()?;
    let size = usize::try_from(size).unwrap_or_default();
    let has_next = orders.len() > size;
    orders.truncate(size);
    Ok(Page { orders, has_next, total })
}

async fn count(db: &mut PgConnection, filter: &Filter) -> Result<i64, sqlx::Error> {
    count_query(filter).build_query_scalar().persistent(filter.is_plain()).fetch_one(db).await
}

/// The statement that reads a page.
pub fn page_query(filter: &Filter, start: Start, size: i64) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("");
    push_page(&mut query, filter, start, size, false);
    query
}

/// The statement that counts. [`list`] has it inside the one that reads the page.
pub fn count_query(filter: &Filter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("");
    push_count(&mut query, filter);
    query
}

fn push_page(query: &mut QueryBuilder<Postgres>, filter: &Filter, start: Start, size: i64, counts: bool) {
    query.push(
        "SELECT o.id, o.customer_id, o.order_date, o.status, o.total_amount, o.version, o.created_at, o.updated_at, \
         l.ids AS line_ids, l.positions, l.products, l.quantities, l.prices",
    );
    if counts {
        query.push(", (");
        push_count(query, filter);
        query.push(") AS total");
    }
    // What is filtered out or skipped is seen in the index alone, and only the rows that are shown are then read.
    // Where nothing is, the first rows are the ones.
    let first_ones = filter.is_plain() && !matches!(start, Start::Offset(1..));
    query.push(if first_ones { " FROM (SELECT *" } else { " FROM (SELECT id" });
    query.push(" FROM orders o WHERE true");
    filter.push_owner(query);
    filter.push_conditions(query);
    if let Some(product) = filter.product {
        query.push(" AND EXISTS (SELECT FROM order_lines l WHERE l.order_id = o.id AND l.product_id = ");
        query.push_bind(product.get()).push(")");
    }
    if let Start::After(position) = start {
        query.push(" AND (created_at, id) < (").push_bind(position.created_at);
        query.push(", ").push_bind(position.id.get()).push(")");
    }
    // One more than asked for tells whether another page follows.
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(size + 1);
    if let Start::Offset(offset @ 1..) = start {
        query.push(" OFFSET ").push_bind(offset);
    }
    query.push(if first_ones { ") AS o" } else { ") AS page JOIN orders o USING (id)" });
    query.push(
        ", LATERAL ( \
             SELECT array_agg(id) AS ids, array_agg(position) AS positions, array_agg(product_id) AS products, \
                    array_agg(quantity) AS quantities, array_agg(unit_price) AS prices \
             FROM order_lines WHERE order_id = o.id \
         ) AS l ORDER BY o.created_at DESC, o.id DESC",
    );
}

fn push_count(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    query.push("SELECT count(*) FROM (SELECT FROM ");
    if let Some(product) = filter.product {
        query.push(
            "(SELECT DISTINCT order_id AS id FROM (SELECT order_id FROM order_lines WHERE product_id = ",
        );
        query.push_bind(product.get());
        query.push(" ORDER BY order_id DESC LIMIT ").push_bind(LOOKED_AT);
        query.push(") AS newest) AS having_it JOIN orders o USING (id) WHERE true");
        filter.push_owner(query);
    } else if filter.is_plain() {
        query.push("orders o WHERE true");
        filter.push_owner(query);
        // Along the index: as cheap where many rows have been deleted.
        query.push(" ORDER BY created_at DESC, id DESC");
    } else {
        query.push("(SELECT status, order_date, total_amount FROM orders o WHERE true");
        filter.push_owner(query);
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(LOOKED_AT);
        query.push(") AS newest WHERE true");
    }
    filter.push_conditions(query);
    query.push(" LIMIT ").push_bind(COUNTED).push(") AS counted");
}

impl Filter {
    /// Whether only the owner is asked for. Such statements are few and keep their plan; the others are planned with
    /// the values of each request, which decide what is rare.
    fn is_plain(&self) -> bool {
        *self == Self { customer: self.customer, ..Self::default() }
    }

    fn push_owner(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(customer) = self.customer {
            query.push(" AND customer_id = ").push_bind(customer.get());
        }
    }

    fn push_conditions(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(status) = self.status {
            query.push(" AND status = ").push_bind(status.as_str());
        }
        if let Some(from) = self.date_from {
            query.push(" AND order_date >= ").push_bind(from);
        }
        if let Some(to) = self.date_to {
            query.push(" AND order_date <= ").push_bind(to);
        }
        if let Some(min) = self.min_total {
            query.push(" AND total_amount >= ").push_bind(min.amount());
        }
        if let Some(max) = self.max_total {
            query.push(" AND total_amount <= ").push_bind(max.amount());
        }
    }
}
