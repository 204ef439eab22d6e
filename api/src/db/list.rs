//! Reading the list: newest first, by offset or from a position, with any combination of filters.
//!
//! The statement is put together from fixed pieces, so that what is not asked for is not in it: a condition such as
//! `$1 IS NULL OR status = $1` would hide the choice from the planner.

use futures_util::TryStreamExt as _;
use shared::domain::{
    order::{CustomerId, Money, Order, OrderId, OrderStatus, ProductId},
    tenant::TenantId,
};
use sqlx::{FromRow as _, PgConnection, Postgres, QueryBuilder, Row as _};
use time::{Date, OffsetDateTime};

use super::{
    columns::raw_ids,
    read::{OrderRow, order_columns, order_lines},
};

/// `total` is counted up to this number, which then means "this many or more". Pages reach as far.
pub const MAX_TOTAL: i64 = 10_000;
/// With a filter, `total` counts among this many of the newest orders (or order lines of a product, or orders with a reference)
/// only, so that it never scans everything for a filter that matches rarely.
pub const MAX_SCANNED: i64 = 50_000;

/// Which orders. All conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFilter {
    /// The tenant: nobody can ask for the orders of all tenants.
    pub tenant: TenantId,
    /// The owner; `None` is everybody of the tenant.
    pub customer: Option<CustomerId>,
    /// Only orders among these.
    pub ids: Option<Vec<OrderId>>,
    /// The client's own number.
    pub reference: Option<String>,
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

/// The position of an order in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPosition {
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// Its id, which decides among orders of the same time.
    pub id: OrderId,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStart {
    /// After this many orders.
    Offset(i64),
    /// After the position of this order, which can be deleted by now.
    After(ListPosition),
}

/// A page of the list.
#[derive(Debug)]
pub struct OrderPage {
    /// The orders, newest first.
    pub orders: Vec<Order>,
    /// Whether more follow.
    pub has_next: bool,
    /// How many match, if the page begins at an offset: exact below [`MAX_TOTAL`], and among the newest [`MAX_SCANNED`] if
    /// there are filters.
    pub total: Option<i64>,
}

/// Reads a page, and its total if it begins at an offset, in one round trip.
pub async fn load_order_page(
    db: &mut PgConnection,
    filter: &OrderFilter,
    start: PageStart,
    size: i64,
) -> Result<OrderPage, sqlx::Error> {
    let mut page = read_page(db, filter, start, size, usize::MAX).await?;
    if matches!(start, PageStart::Offset(_)) && page.orders.is_empty() {
        // No row that could carry the total.
        page.total = Some(count_orders(db, filter).await?);
    }
    Ok(page)
}

/// Reads up to `size` orders after a position, and fewer if they are large: it ends with the order whose metadata make it more than
/// `max_bytes`.
pub async fn load_orders_after(
    db: &mut PgConnection,
    filter: &OrderFilter,
    after: ListPosition,
    size: i64,
    max_bytes: usize,
) -> Result<OrderPage, sqlx::Error> {
    read_page(db, filter, PageStart::After(after), size, max_bytes).await
}

/// Reads row by row, so that no order is in memory twice.
async fn read_page(
    db: &mut PgConnection,
    filter: &OrderFilter,
    start: PageStart,
    size: i64,
    max_bytes: usize,
) -> Result<OrderPage, sqlx::Error> {
    let counts = matches!(start, PageStart::Offset(_));
    let mut query = QueryBuilder::new("");
    push_page(&mut query, filter, start, size, counts);
    let mut rows = query.build().persistent(filter.is_plain()).fetch(db);
    let size = usize::try_from(size).unwrap_or_default();
    let mut page = OrderPage { orders: Vec::new(), has_next: false, total: None };
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        if counts {
            page.total = Some(row.try_get("total")?);
        }
        // The rest is read to its end all the same, so that the connection is free for the next statement.
        page.has_next |= page.orders.len() == size || bytes > max_bytes;
        if !page.has_next {
            let order = Order::try_from(OrderRow::from_row(&row)?)?;
            bytes += order.metadata.size();
            page.orders.push(order);
        }
    }
    Ok(page)
}

async fn count_orders(db: &mut PgConnection, filter: &OrderFilter) -> Result<i64, sqlx::Error> {
    count_query(filter).build_query_scalar().persistent(filter.is_plain()).fetch_one(db).await
}

/// The statement that reads a page.
pub fn page_query(filter: &OrderFilter, start: PageStart, size: i64) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("");
    push_page(&mut query, filter, start, size, false);
    query
}

/// The statement that counts. [`load_order_page`] has it inside the one that reads the page.
pub fn count_query(filter: &OrderFilter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("");
    push_count(&mut query, filter);
    query
}

fn push_page(
    query: &mut QueryBuilder<Postgres>,
    filter: &OrderFilter,
    start: PageStart,
    size: i64,
    counts: bool,
) {
    query.push(concat!("SELECT ", order_columns!()));
    if counts {
        query.push(", (");
        push_count(query, filter);
        query.push(") AS total");
    }
    // Filtering and skipping read the index alone, and then only the rows of the page are read. Without either, the first
    // rows are those of the page.
    let first_ones = filter.is_plain() && !matches!(start, PageStart::Offset(1..));
    query.push(if first_ones { " FROM (SELECT *" } else { " FROM (SELECT tenant_id, id" });
    query.push(" FROM orders o WHERE ");
    filter.push_owner(query);
    filter.push_names(query);
    filter.push_conditions(query);
    filter.push_product(query);
    if let PageStart::After(position) = start {
        query.push(" AND (created_at, id) < (").push_bind(position.created_at);
        query.push(", ").push_bind(position.id.get()).push(")");
    }
    // One more than asked for, to see whether another page follows.
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(size + 1);
    if let PageStart::Offset(offset @ 1..) = start {
        query.push(" OFFSET ").push_bind(offset);
    }
    query.push(if first_ones { ") AS o" } else { ") AS page JOIN orders o USING (tenant_id, id)" });
    query.push(concat!(", ", order_lines!(), " ORDER BY o.created_at DESC, o.id DESC"));
}

fn push_count(query: &mut QueryBuilder<Postgres>, filter: &OrderFilter) {
    query.push("SELECT count(*) FROM (SELECT FROM ");
    if filter.names_orders() {
        query.push("(SELECT id, status, order_date, total_amount FROM orders o WHERE ");
        filter.push_owner(query);
        filter.push_names(query);
        query.push(" LIMIT ").push_bind(MAX_SCANNED);
        query.push(") AS o WHERE true");
        filter.push_product(query);
    } else if let Some(product) = filter.product {
        query.push(
            "(SELECT DISTINCT order_id AS id FROM (SELECT order_id FROM order_lines WHERE tenant_id = ",
        );
        query.push_bind(filter.tenant.get()).push(" AND product_id = ").push_bind(product.get());
        query.push(" ORDER BY order_id DESC LIMIT ").push_bind(MAX_SCANNED);
        query.push(") AS newest) AS having_it JOIN orders o USING (id) WHERE ");
        filter.push_owner(query);
    } else if filter.is_plain() {
        query.push("orders o WHERE ");
        filter.push_owner(query);
        // Along the index: as cheap if many rows have been deleted.
        query.push(" ORDER BY created_at DESC, id DESC");
    } else {
        query.push("(SELECT status, order_date, total_amount FROM orders o WHERE ");
        filter.push_owner(query);
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(MAX_SCANNED);
        query.push(") AS newest WHERE true");
    }
    filter.push_conditions(query);
    query.push(" LIMIT ").push_bind(MAX_TOTAL).push(") AS counted");
}

impl OrderFilter {
    /// All orders of a tenant.
    pub const fn all_of(tenant: TenantId) -> Self {
        Self {
            tenant,
            customer: None,
            ids: None,
            reference: None,
            status: None,
            product: None,
            date_from: None,
            date_to: None,
            min_total: None,
            max_total: None,
        }
    }

    /// Whether at most the owner is filtered. Such statements are few and keep their plan; the others are planned with
    /// the values of each request, which decide what is rare.
    fn is_plain(&self) -> bool {
        *self == Self { customer: self.customer, ..Self::all_of(self.tenant) }
    }

    /// The condition that every query begins with.
    fn push_owner(&self, query: &mut QueryBuilder<Postgres>) {
        query.push("o.tenant_id = ").push_bind(self.tenant.get());
        if let Some(customer) = self.customer {
            query.push(" AND customer_id = ").push_bind(customer.get());
        }
    }

    /// Whether it names the orders, of which there are few then.
    fn names_orders(&self) -> bool {
        self.ids.is_some() || self.reference.is_some()
    }

    fn push_names(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(ids) = &self.ids {
            query.push(" AND id = ANY(").push_bind(raw_ids(ids)).push(")");
        }
        if let Some(reference) = &self.reference {
            query.push(" AND reference = ").push_bind(reference.clone());
        }
    }

    fn push_product(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(product) = self.product {
            query.push(" AND EXISTS (SELECT FROM order_lines l WHERE l.order_id = o.id AND l.tenant_id = ");
            query
                .push_bind(self.tenant.get())
                .push(" AND l.product_id = ")
                .push_bind(product.get())
                .push(")");
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
