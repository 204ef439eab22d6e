//! The filters of the list and of the export, as parameters of the query.

use shared::domain::order::{CustomerId, Money, OrderStatus, ProductId};
use time::Date;
use utoipa::IntoParams;

use super::body::{parse_date, parse_money};
use crate::{
    auth::{Caller, Role},
    db::OrderFilter,
    http::{
        error::{ApiError, Code, FieldError},
        extract::{FieldErrors, Query, field_code},
    },
};

/// Which orders.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterQuery {
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

impl FilterQuery {
    /// Reads the filters, and leaves the other parameters.
    pub(super) fn read(query: &mut Query<'_>, errors: &mut FieldErrors) -> Self {
        let filter = Self {
            customer_id: query.integer("customer_id", 1..=i64::MAX, errors).and_then(|id| id.try_into().ok()),
            status: query.parsed("status", errors),
            product_id: query.integer("product_id", 1..=i64::MAX, errors).and_then(|id| id.try_into().ok()),
            order_date_from: query.optional("order_date_from", parse_date, errors),
            order_date_to: query.optional("order_date_to", parse_date, errors),
            min_total: query.optional("min_total", parse_money, errors),
            max_total: query.optional("max_total", parse_money, errors),
        };
        let dates = (filter.order_date_from, filter.order_date_to);
        check_range("order_date_from", "order_date_to", dates, errors);
        check_range("min_total", "max_total", (filter.min_total, filter.max_total), errors);
        filter
    }

    /// A customer sees only its own orders.
    pub(super) fn restricted_to(mut self, caller: Caller) -> Result<Self, ApiError> {
        if caller.role == Role::Customer {
            let own = caller.customer_id;
            if self.customer_id.replace(own).is_some_and(|named| named != own) {
                return Err(ApiError::new(Code::Forbidden, "a customer may only list its own orders"));
            }
        }
        Ok(self)
    }

    /// The conditions. Every parameter is named, so that a new one does not compile until it is decided what it does.
    pub(super) fn conditions(&self) -> OrderFilter {
        let Self { customer_id, status, product_id, order_date_from, order_date_to, min_total, max_total } =
            *self;
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
