//! `GET /api/v1/orders`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use shared::domain::{order::Order, tenant::TenantId};
use utoipa::{IntoParams, ToSchema};

use super::{
    filter::FilterQuery,
    page_cursor::{decode_cursor, encode_cursor},
};
use crate::{
    auth::Caller,
    db::{self, ListPosition, MAX_TOTAL, OrderFilter, OrderPage, PageStart},
    http::{
        error::{ApiError, FieldError, Problem},
        extract::{FieldErrors, Query, field_code},
    },
    state::AppState,
};

/// Which page of the list.
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
    #[param(value_type = Option<String>, nullable = false, pattern = "^([A-Za-z0-9_-]{23}|[A-Za-z0-9_-]{28})$")]
    cursor: Option<ListPosition>,
    #[param(ignore)]
    filter: OrderFilter,
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
        let cursor = query.optional("cursor", |text| parse_cursor(text, caller.tenant), &mut errors);
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
        let filter = FilterQuery::read(&mut query, &mut errors);
        query.reject_unknown(&mut errors);
        errors.into_result(|| Some(()))?;
        Ok(Self { page, size, cursor, filter: filter.restricted_to(caller)? })
    }

    /// Where in the list the page begins.
    pub(super) fn start(&self) -> PageStart {
        match self.cursor {
            Some(position) => PageStart::After(position),
            None => PageStart::Offset((self.page - 1) * self.size),
        }
    }

    /// The conditions.
    pub(super) const fn filter(&self) -> &OrderFilter {
        &self.filter
    }

    fn into_list(self, page: OrderPage) -> OrderList {
        let OrderPage { orders, has_next, total } = page;
        let last = orders.last().filter(|_| has_next);
        let position = |order: &Order| ListPosition { created_at: order.created_at, id: order.id };
        let next_cursor = last.map(|order| encode_cursor(position(order), self.filter.tenant));
        let page = self.cursor.is_none().then_some(self.page);
        let has_prev = page.is_none_or(|page| page > 1);
        OrderList { orders, total, page, size: self.size, has_next, has_prev, next_cursor }
    }
}

fn parse_cursor(text: &str, tenant: TenantId) -> Result<ListPosition, (&'static str, String)> {
    decode_cursor(text, tenant)
        .ok_or_else(|| (field_code::INVALID_VALUE, "must be the next_cursor of an answer".to_owned()))
}

/// List orders
///
/// Newest first; customers see their own, other roles all of their tenant. By page, or by cursor, which costs the same at any depth,
/// and never repeats or hides an order because another is placed meanwhile.
#[utoipa::path(
    get,
    path = "/api/v1/orders",
    tag = "orders",
    operation_id = "list_orders",
    params(ListQuery, FilterQuery),
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
    let (filter, start, size) = (query.filter(), query.start(), query.size);
    let page = state
        .orders
        .read_db
        .read_with_fallback(|mut db| async move { db::load_order_page(&mut db, filter, start, size).await })
        .await?;
    Ok(Json(query.into_list(page)))
}
