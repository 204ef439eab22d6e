//! `GET /api/v1/orders`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use shared::domain::order::{CustomerId, Money, Order, OrderStatus, ProductId};
use time::Date;
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{parse_date, parse_money},
    page_cursor::{decode_cursor, encode_cursor},
};
use crate::{
    auth::{Caller, Role},
    db::{self, ListPosition, MAX_TOTAL, OrderFilter, OrderPage, PageStart},
    http::{
        error::{ApiError, Code, FieldError, Problem},
        extract::{FieldErrors, Query, field_code},
    },
    state::AppState,
};

/// Which orders, and which page of them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The page; pages beyond 10 000 orders are reached by `cursor`.
    #[param(required = false, minimum = 1, default = 1)]
    page: i64,
    /// Orders of a page.
    #[param(required = false, minimum = 1, maximum = 100, default = 10)]
    pub(super) size: i64,
    /// Where to continue: the `next_cursor` of a response. Filters are given again with each request.
    #[param(value_type = Option<String>, nullable = false, pattern = "^[A-Za-z0-9_-]{23}$")]
    cursor: Option<ListPosition>,
    /// Only orders with this status.
    #[param(nullable = false)]
    status: Option<OrderStatus>,
    /// Only orders of this product.
    #[param(nullable = false)]
    product_id: Option<ProductId>,
    /// The first order date.
    #[param(value_type = Option<String>, format = Date, nullable = false)]
    order_date_from: Option<Date>,
    /// The last order date.
    #[param(value_type = Option<String>, format = Date, nullable = false)]
    order_date_to: Option<Date>,
    /// The lowest total, with at most two decimals.
    #[param(value_type = Option<String>, pattern = r"^[0-9]{1,12}(\.[0-9]{1,2})?$", nullable = false)]
    min_total: Option<Money>,
    /// The highest total, with at most two decimals.
    #[param(value_type = Option<String>, pattern = r"^[0-9]{1,12}(\.[0-9]{1,2})?$", nullable = false)]
    max_total: Option<Money>,
    /// Only orders of this customer; for administrators.
    #[param(nullable = false)]
    customer_id: Option<CustomerId>,
}

/// A page of the list, newest first.
#[derive(Serialize, ToSchema)]
pub struct OrderList {
    /// The orders.
    orders: Vec<Order>,
    /// How many match: exact below 10 000, which means "this many or more". With filters, of the newest 50 000
    /// orders (or lines of the product), so that it never costs a full scan. Left out if a cursor is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 10_000, nullable = false)]
    total: Option<i64>,
    /// The page. Left out if a cursor is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    page: Option<i64>,
    /// Orders of a page.
    #[schema(minimum = 1, maximum = 100)]
    size: i64,
    /// Whether orders follow.
    has_next: bool,
    /// Whether orders came before.
    has_prev: bool,
    /// Where to continue; `null` if nothing follows.
    next_cursor: Option<String>,
}

impl ListQuery {
    pub(super) fn parse(query: Option<&str>, caller: Caller) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut query = Query::parse(query);
        let size = query.integer("size", 1..=100, &mut errors).unwrap_or(10);
        let cursor = query.optional("cursor", parse_cursor, &mut errors);
        let page = query.integer("page", 1..=i64::MAX, &mut errors);
        if query.has("cursor") && page.is_some() {
            let detail = "cannot be combined with a cursor";
            errors.push(FieldError::new("?page", field_code::INVALID_VALUE, detail));
        }
        let page = page.unwrap_or(1);
        if (page - 1).saturating_mul(size) > MAX_TOTAL {
            let detail =
                format!("reaches {MAX_TOTAL} orders deep; continue with `cursor`, from a `next_cursor`");
            errors.push(FieldError::new("?page", field_code::OUT_OF_RANGE, detail));
        }
        let mut list = Self {
            page,
            size,
            cursor,
            customer_id: query
                .integer("customer_id", 1..=i64::MAX, &mut errors)
                .and_then(|id| id.try_into().ok()),
            status: query.parsed("status", &mut errors),
            product_id: query
                .integer("product_id", 1..=i64::MAX, &mut errors)
                .and_then(|id| id.try_into().ok()),
            order_date_from: query.optional("order_date_from", parse_date, &mut errors),
            order_date_to: query.optional("order_date_to", parse_date, &mut errors),
            min_total: query.optional("min_total", parse_money, &mut errors),
            max_total: query.optional("max_total", parse_money, &mut errors),
        };
        let dates = (list.order_date_from, list.order_date_to);
        check_range("order_date_from", "order_date_to", dates, &mut errors);
        check_range("min_total", "max_total", (list.min_total, list.max_total), &mut errors);
        query.reject_unknown(&mut errors);
        errors.into_result(|| Some(()))?;
        list.restrict_to(caller)?;
        Ok(list)
    }

    /// A customer sees only its own orders.
    fn restrict_to(&mut self, caller: Caller) -> Result<(), ApiError> {
        if caller.role == Role::Customer {
            let own = caller.customer_id;
            if self.customer_id.replace(own).is_some_and(|named| named != own) {
                return Err(ApiError::new(Code::Forbidden, "a customer may only list its own orders"));
            }
        }
        Ok(())
    }

    /// Where in the list the page begins.
    pub(super) fn start(&self) -> PageStart {
        match self.cursor {
            Some(position) => PageStart::After(position),
            None => PageStart::Offset((self.page - 1) * self.size),
        }
    }

    /// The conditions. Every parameter is named, so that a new one does not compile until it is decided what it does.
    pub(super) fn filter(&self) -> OrderFilter {
        let Self {
            customer_id,
            status,
            product_id,
            order_date_from,
            order_date_to,
            min_total,
            max_total,
            page: _,
            size: _,
            cursor: _,
        } = *self;
        OrderFilter {
            customer: customer_id,
            status,
            product: product_id,
            date_from: order_date_from,
            date_to: order_date_to,
            min_total,
            max_total,
        }
    }

    fn into_list(self, page: OrderPage) -> OrderList {
        let OrderPage { orders, has_next, total } = page;
        let last = orders.last().filter(|_| has_next);
        let next_cursor =
            last.map(|order| encode_cursor(ListPosition { created_at: order.created_at, id: order.id }));
        let page = self.cursor.is_none().then_some(self.page);
        let has_prev = page.is_none_or(|page| page > 1);
        OrderList { orders, total, page, size: self.size, has_next, has_prev, next_cursor }
    }
}

fn parse_cursor(text: &str) -> Result<ListPosition, (&'static str, String)> {
    decode_cursor(text)
        .ok_or_else(|| (field_code::INVALID_VALUE, "must be the next_cursor of an answer".to_owned()))
}

/// A range that is the wrong way round is a mistake, not an empty range.
fn check_range<T: PartialOrd>(
    from: &str,
    to: &str,
    (low, high): (Option<T>, Option<T>),
    errors: &mut FieldErrors,
) {
    if low.zip(high).is_some_and(|(low, high)| low > high) {
        let detail = format!("must not be less than {from}");
        errors.push(FieldError::new(format!("?{to}"), field_code::OUT_OF_RANGE, detail));
    }
}

/// List orders
///
/// Newest first; customers see their own, administrators all. By page, or by cursor, which costs the same at any depth,
/// and never repeats or hides an order because another is placed meanwhile.
#[utoipa::path(
    get,
    path = "/api/v1/orders",
    tag = "orders",
    operation_id = "list_orders",
    params(ListQuery),
    responses(
        (status = 200, description = "The page", body = OrderList),
        (status = 403, description = "A customer asks for the orders of another", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every error of the query", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    caller: Caller,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<OrderList>, ApiError> {
    let query = ListQuery::parse(query.as_deref(), caller)?;
    let (filter, start, size) = (&query.filter(), query.start(), query.size);
    let page = state
        .orders
        .read_db
        .read_with_fallback(|mut db| async move { db::load_order_page(&mut db, filter, start, size).await })
        .await?;
    Ok(Json(query.into_list(page)))
}
