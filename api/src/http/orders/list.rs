//! `GET /api/v1/orders`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use shared::domain::order::{CustomerId, Order, OrderStatus, ProductId};
use sqlx::PgConnection;
use time::Date;
use utoipa::{IntoParams, ToSchema};

use super::{body, page_cursor};
use crate::{
    auth::{Caller, Role},
    db::{self, COUNTED, Filter, Position, Start},
    http::{
        error::{ApiError, Code, FieldError, Problem},
        extract::{FieldErrors, Query, field_code},
    },
    state::AppState,
};

/// Which orders, and where in the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query; `Wanted::parse` reads it with all its faults")]
pub struct ListQuery {
    /// The page; pages beyond 10 000 orders are reached by `cursor`.
    #[param(minimum = 1, default = 1, nullable = false)]
    page: Option<i64>,
    /// Orders of a page.
    #[param(minimum = 1, maximum = 100, default = 10, nullable = false)]
    size: Option<i64>,
    /// Where to go on: the `next_cursor` of an answer. Filters are given again with each request.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_-]{23}$")]
    cursor: Option<String>,
    /// Only orders that stand there.
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
    min_total: Option<String>,
    /// The highest total, with at most two decimals.
    #[param(value_type = Option<String>, pattern = r"^[0-9]{1,12}(\.[0-9]{1,2})?$", nullable = false)]
    max_total: Option<String>,
    /// Only orders of this customer; for administrators.
    #[param(nullable = false)]
    customer_id: Option<CustomerId>,
}

/// A page of the list, newest first.
#[derive(Serialize, ToSchema)]
pub struct OrderList {
    /// The orders.
    orders: Vec<Order>,
    /// How many match: exact up to 10 000, which stands for "so many or more". With filters, of the newest 50 000
    /// orders (or lines of the product), so that it never costs a full scan. Left out where a cursor is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 10_000, nullable = false)]
    total: Option<i64>,
    /// The page. Left out where a cursor is given.
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
    /// Where to go on; `null` where nothing follows.
    next_cursor: Option<String>,
}

/// The query as it was understood.
pub(super) struct Wanted {
    pub(super) filter: Filter,
    place: Place,
    pub(super) size: i64,
}

enum Place {
    Page(i64),
    After(Position),
}

impl Wanted {
    pub(super) fn parse(query: Option<&str>, caller: Caller) -> Result<Self, ApiError> {
        let mut faults = FieldErrors::new();
        let mut query = Query::parse(query);
        let size = query.integer("size", 1..=100, &mut faults).unwrap_or(10);
        let after = query.optional("cursor", after, &mut faults);
        let page = query.integer("page", 1..=i64::MAX, &mut faults);
        if query.has("cursor") && page.is_some() {
            faults.push(FieldError::new(
                "?page",
                field_code::INVALID_VALUE,
                "cannot be combined with a cursor",
            ));
        }
        let page = page.unwrap_or(1);
        if (page - 1).saturating_mul(size) > COUNTED {
            let detail = format!("reaches {COUNTED} orders deep; go on with `cursor`, from a `next_cursor`");
            faults.push(FieldError::new("?page", field_code::OUT_OF_RANGE, detail));
        }
        let filter = filter(&mut query, &mut faults);
        query.reject_unknown(&mut faults);
        let mut wanted = faults.into_result(|| {
            Some(Self { filter, place: after.map_or(Place::Page(page), Place::After), size })
        })?;
        wanted.restrict_to(caller)?;
        Ok(wanted)
    }

    /// A customer sees only its own orders.
    fn restrict_to(&mut self, caller: Caller) -> Result<(), ApiError> {
        if caller.role == Role::Customer {
            let own = caller.customer_id;
            if self.filter.customer.replace(own).is_some_and(|named| named != own) {
                return Err(ApiError::new(Code::Forbidden, "a customer may only list its own orders"));
            }
        }
        Ok(())
    }

    /// Where in the list it begins.
    pub(super) fn start(&self) -> Start {
        match self.place {
            Place::After(position) => Start::After(position),
            Place::Page(page) => Start::Offset((page - 1) * self.size),
        }
    }

    async fn read(&self, db: &mut PgConnection) -> Result<OrderList, sqlx::Error> {
        let Self { ref filter, ref place, size } = *self;
        let page = match *place {
            Place::After(_) => None,
            Place::Page(page) => Some(page),
        };
        let db::Page { orders, has_next, total } = db::list(db, filter, self.start(), size).await?;
        let last = orders.last().filter(|_| has_next);
        let next_cursor =
            last.map(|order| page_cursor::write(Position { created_at: order.created_at, id: order.id }));
        let has_prev = page.is_none_or(|page| page > 1);
        Ok(OrderList { orders, total, page, size, has_next, has_prev, next_cursor })
    }
}

fn after(text: &str) -> Result<Position, (&'static str, String)> {
    page_cursor::read(text)
        .ok_or_else(|| (field_code::INVALID_VALUE, "must be the next_cursor of an answer".to_owned()))
}

fn filter(query: &mut Query<'_>, faults: &mut FieldErrors) -> Filter {
    let filter = Filter {
        customer: query.integer("customer_id", 1..=i64::MAX, faults).and_then(|id| id.try_into().ok()),
        status: query.parsed("status", faults),
        product: query.integer("product_id", 1..=i64::MAX, faults).and_then(|id| id.try_into().ok()),
        date_from: query.optional("order_date_from", body::date, faults),
        date_to: query.optional("order_date_to", body::date, faults),
        min_total: query.optional("min_total", body::money, faults),
        max_total: query.optional("max_total", body::money, faults),
    };
    ordered("order_date_from", "order_date_to", filter.date_from, filter.date_to, faults);
    ordered("min_total", "max_total", filter.min_total, filter.max_total, faults);
    filter
}

/// A range that is the wrong way round is a mistake, not an empty range.
fn ordered<T: PartialOrd>(from: &str, to: &str, low: Option<T>, high: Option<T>, faults: &mut FieldErrors) {
    if low.zip(high).is_some_and(|(low, high)| low > high) {
        let detail = format!("must not be less than {from}");
        faults.push(FieldError::new(format!("?{to}"), field_code::OUT_OF_RANGE, detail));
    }
}

/// List orders
///
/// Newest first; a customer's own, an administrator's all. By page, or by cursor, which costs the same at any depth
/// and in which an order placed meanwhile never repeats or hides another.
#[utoipa::path(
    get,
    path = "/api/v1/orders",
    tag = "orders",
    operation_id = "list_orders",
    params(ListQuery),
    responses(
        (status = 200, description = "The page", body = OrderList),
        (status = 403, description = "A customer asks for the orders of another", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every fault of the query", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    caller: Caller,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<OrderList>, ApiError> {
    let wanted = &Wanted::parse(query.as_deref(), caller)?;
    let list = state.orders.read_db.read(|mut db| async move { wanted.read(&mut db).await }).await?;
    Ok(Json(list))
}
