//! The filters of the list and of the export, as parameters of the query.

use shared::domain::{
    order::{CustomerId, Money, OrderId, OrderStatus, ProductId},
    tenant::TenantId,
};
use time::Date;
use utoipa::IntoParams;

use super::{
    body::{parse_date, parse_money},
    own_fields::parse_reference,
};
use crate::{
    auth::{Action, Caller, Extent},
    db::OrderFilter,
    http::{
        error::{ApiError, Code, FieldError},
        extract::{FieldErrors, Query, field_code},
    },
};

/// The most ids of a request.
const MAX_IDS: usize = 100;

/// Which orders.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterQuery {
    /// Only orders among these, such as `1,2,3`.
    #[param(style = Form, explode = false, min_items = 1, max_items = 100, nullable = false)]
    ids: Option<Vec<OrderId>>,
    /// Only the order with this number of the client's own; for administrators the orders of all customers with it.
    #[param(
        nullable = false,
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
    )]
    reference: Option<String>,
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
            ids: query.optional("ids", parse_ids, errors),
            reference: query.optional("reference", parse_reference, errors),
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

    /// The conditions. A customer sees only its own orders, and everybody only those of one tenant.
    pub(super) fn restricted_to(mut self, caller: Caller) -> Result<OrderFilter, ApiError> {
        if caller.extent(Action::ReadOrders) != Extent::All {
            let own = caller.customer_id;
            if self.customer_id.replace(own).is_some_and(|named| named != own) {
                return Err(ApiError::new(Code::Forbidden, "a customer may only list its own orders"));
            }
        }
        Ok(self.conditions(caller.tenant))
    }

    /// Every parameter is named, so that a new one does not compile until it is decided what it does.
    fn conditions(self, tenant: TenantId) -> OrderFilter {
        let Self {
            ids,
            reference,
            customer_id,
            status,
            product_id,
            order_date_from,
            order_date_to,
            min_total,
            max_total,
        } = self;
        OrderFilter {
            tenant,
            customer: customer_id,
            ids,
            reference,
            status,
            product: product_id,
            date_from: order_date_from,
            date_to: order_date_to,
            min_total,
            max_total,
        }
    }
}

/// Reads ids, with commas between them.
fn parse_ids(text: &str) -> Result<Vec<OrderId>, (&'static str, String)> {
    let count = text.split(',').count();
    if count > MAX_IDS {
        return Err((field_code::INVALID_LENGTH, format!("must be at most {MAX_IDS} ids, not {count}")));
    }
    let invalid = || {
        let detail = "must be positive 64-bit integers with commas between them, as 1,2,3";
        (field_code::INVALID_VALUE, detail.to_owned())
    };
    let parse_id = |text: &str| {
        // `i64` would accept a leading plus.
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let id = text.parse::<i64>().ok().filter(|_| is_number);
        id.and_then(|id| id.try_into().ok()).ok_or_else(invalid)
    };
    text.split(',').map(parse_id).collect()
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
