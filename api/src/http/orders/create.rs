//! `POST /api/v1/orders`.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Uri},
};
use serde::{Deserialize, Serialize};
use shared::{
    domain::{
        event::{Event, Happened},
        order::{CustomerId, MAX_LINES, Order, OrderLine, OrderStatus},
    },
    platform::telemetry::current_traceparent,
};
use time::Date;
use utoipa::ToSchema;

use super::{
    body::{self, LineBody},
    idempotency,
    openapi::{BodyErrors, KeyHeader, WriteErrors},
    response::Answer,
};
use crate::{
    auth::{Caller, Role},
    http::{
        error::{ApiError, Code, Problem},
        extract::{FieldErrors, JsonBody, Object, Value, field_code},
        layer::Context,
    },
    orders::{rules::LineInput, writer::CreateJob},
    state::AppState,
};

const ROUTE: &str = "/api/v1/orders";

/// An order to place.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"order_date": "2025-01-20", "lines": [
    {"product_id": 1001, "quantity": 2, "unit_price": 25.50}, {"product_id": 1002, "quantity": 1, "unit_price": "15.00"}]}))]
pub struct CreateOrder {
    /// Whose order it is: the caller's where it is left out. Only an administrator may, and must, name somebody.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(nullable = false)]
    customer_id: Option<CustomerId>,
    /// Not after today anywhere on Earth.
    #[serde(with = "shared::domain::timestamp::date")]
    #[schema(value_type = String, format = Date)]
    order_date: Date,
    /// May be said, and then only `PENDING`.
    #[serde(default, deserialize_with = "body::present_text")]
    #[schema(value_type = Option<String>, nullable = false, pattern = "^PENDING$")]
    status: Option<OrderStatus>,
    /// What is ordered.
    #[schema(min_items = 1, max_items = 50)]
    lines: Vec<LineBody>,
}

/// The request as it was understood: what makes two requests the same.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Command {
    customer_id: CustomerId,
    #[serde(with = "shared::domain::timestamp::date")]
    order_date: Date,
    lines: Vec<LineInput>,
}

impl Command {
    pub(super) fn parse(body: &[u8], caller: Caller, latest: Date) -> Result<Self, ApiError> {
        let command = match Self::at_once(body, caller, latest) {
            Some(command) => command,
            None => Self::carefully(body, caller, latest)?,
        };
        if caller.may_access(command.customer_id) {
            Ok(command)
        } else {
            Err(ApiError::new(Code::Forbidden, "a customer may only place orders of its own"))
        }
    }

    /// Reads the usual body in one pass. `None` stands for what has a fault, or is written in an unusual way.
    pub(super) fn at_once(body: &[u8], caller: Caller, latest: Date) -> Option<Self> {
        let CreateOrder { customer_id, order_date, status, lines } = serde_json::from_slice(body).ok()?;
        let customer_id = match caller.role {
            Role::Admin => customer_id?,
            Role::Customer => customer_id.unwrap_or(caller.customer_id),
        };
        let may_be = order_date <= latest
            && order_date.year() > 0
            && status.is_none_or(|status| status == OrderStatus::Pending)
            && (1..=MAX_LINES).contains(&lines.len());
        let lines: Option<Vec<LineInput>> = lines.into_iter().map(LineBody::checked).collect();
        may_be.then_some(Self { customer_id, order_date, lines: lines? })
    }

    /// Reads any body, with all its faults.
    pub(super) fn carefully(body: &[u8], caller: Caller, latest: Date) -> Result<Self, ApiError> {
        let mut faults = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let customer_id = match caller.role {
            Role::Admin => fields.required("customer_id", Value::id, &mut faults),
            Role::Customer => fields
                .optional("customer_id", Value::id, &mut faults)
                .map(|named| named.unwrap_or(caller.customer_id)),
        };
        let order_date = fields.required("order_date", |value| body::order_date(value, latest), &mut faults);
        fields.optional(
            "status",
            |value| match value.parsed()? {
                OrderStatus::Pending => Ok(()),
                _ => Err(value.error(field_code::INVALID_VALUE, "an order begins as PENDING")),
            },
            &mut faults,
        );
        let lines = fields.required_value("lines", &mut faults);
        let lines = lines.and_then(|value| body::lines(&value, &mut faults));
        fields.reject_unknown(&mut faults);
        faults
            .into_result(|| Some(Self { customer_id: customer_id?, order_date: order_date?, lines: lines? }))
    }
}

/// Place an order
///
/// Its total is computed. With an `Idempotency-Key` the request may be repeated safely for 24 hours.
#[utoipa::path(
    post,
    path = "/api/v1/orders",
    tag = "orders",
    operation_id = "create_order",
    params(KeyHeader),
    request_body = CreateOrder,
    responses(
        (status = 201, description = "Placed", body = Order, headers(
            ("Location" = String, description = "Where the order is"),
            ("ETag" = String, description = "Its version, quoted"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` where this answer was given before"),
        )),
        (status = 403, description = "The body names another customer", body = Problem, content_type = "application/problem+json"),
        BodyErrors,
        WriteErrors,
    ),
)]
pub async fn create(
    caller: Caller,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    Extension(context): Extension<Arc<Context>>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let command = Command::parse(&body, caller, state.clock.latest_today())?;
    let claim = idempotency::claim(&headers, caller, "POST", ROUTE, uri.path(), &command)?;
    let order = new_order(command, &state).await?;

    let happened = Happened {
        time: order.created_at,
        performed_by: caller.customer_id,
        traceparent: current_traceparent(),
    };
    let event = Event::created(order, happened);
    let answer = Answer::created(&event.data.order);
    let envelope = event.to_envelope();
    let order = event.data.order.into_value();
    let job = |reply| CreateJob { order, event: envelope, answer, claim, reply };
    let answer = state.orders.writer.create(job).await?;
    // Of a replayed answer it is the order that was placed then.
    if let Some(placed) = answer.placed() {
        context.set_order(placed);
    }
    Ok(answer)
}

async fn new_order(command: Command, state: &AppState) -> Result<Order, ApiError> {
    let (id, line_ids) = state.orders.ids.order(command.lines.len()).await?;
    let lines: Vec<OrderLine> =
        command.lines.into_iter().zip(line_ids).map(|(line, id)| line.with_id(id)).collect();
    let now = state.clock.now();
    Ok(Order {
        id,
        customer_id: command.customer_id,
        order_date: command.order_date,
        status: OrderStatus::Pending,
        total_amount: lines.iter().map(OrderLine::total).sum(),
        version: 1,
        created_at: now,
        updated_at: now,
        lines,
    })
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};
    use time::macros::date;

    use super::*;

    fn caller(role: Role) -> Caller {
        Caller { customer_id: CustomerId::try_from(7).unwrap(), role }
    }

    fn read_both_ways(body: &str, role: Role) -> (Option<Command>, Option<Command>) {
        let latest = date!(2025 - 01 - 21);
        let at_once = Command::at_once(body.as_bytes(), caller(role), latest);
        (at_once, Command::carefully(body.as_bytes(), caller(role), latest).ok())
    }

    #[test]
    fn the_usual_bodies_are_read_at_once() {
        for body in [
            r#"{"order_date":"2025-01-20","lines":[{"product_id":1001,"quantity":2,"unit_price":"25.50"}]}"#,
            r#"{ "customer_id": 7, "status": "PENDING", "lines": [ {"unit_price": 1e2, "quantity": 1000, "product_id": 1},
                {"unit_price": 0, "quantity": 1, "product_id": 9223372036854775807} ], "order_date": "2025-01-21" }"#,
        ] {
            let (at_once, carefully) = read_both_ways(body, Role::Customer);
            assert!(at_once.is_some(), "{body}");
            assert_eq!(at_once, carefully, "{body}");
        }
    }

    const IDS: [&str; 11] =
        ["1", "7", "0", "-1", "1.0", "1e0", "9223372036854775808", "null", r#""7""#, "true", "{}"];
    const DATES: [&str; 9] = [
        r#""0000-12-31""#,
        r#""0001-01-01""#,
        r#""2025-01-20""#,
        r#""2025-01-22""#,
        r#""2025-1-20""#,
        r#""2025-02-30""#,
        r#""2025-01-\u0032\u0030""#,
        "20250120",
        "null",
    ];
    const STATUSES: [&str; 7] = [
        r#""PENDING""#,
        r#""PEND\u0049NG""#,
        r#""SHIPPED""#,
        r#""pending""#,
        r#"{"PENDING":null}"#,
        "null",
        r#""\ud800""#,
    ];
    const QUANTITIES: [&str; 9] = ["1", "1000", "1001", "0", "2.0", "2.5", "1e3", "4294967297", r#""1""#];
    const PRICES: [&str; 14] = [
        r#""25.50""#,
        "25.5",
        "0",
        "-0",
        "-1",
        "999999.99",
        "1000000",
        "1.005",
        "1e400",
        r#""1e2""#,
        r#"" 1""#,
        r#""2\u0035""#,
        "null",
        "[]",
    ];

    /// A member that is there in three of four cases.
    fn member(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
        prop::option::weighted(0.75, select(values).prop_map(move |value| format!(r#""{name}":{value}"#)))
    }

    fn line() -> impl Strategy<Value = String> {
        (member("product_id", &IDS), member("quantity", &QUANTITIES), member("unit_price", &PRICES))
            .prop_map(|(product, quantity, price)| object([product, quantity, price]))
    }

    fn object<const N: usize>(members: [Option<String>; N]) -> String {
        format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(","))
    }

    fn lines() -> impl Strategy<Value = Option<String>> {
        let usual = Just(r#"{"product_id":1,"quantity":2,"unit_price":3}"#.to_owned());
        let lines = prop::collection::vec(prop_oneof![3 => usual, 1 => line()], 0..52);
        let lines = lines.prop_map(|lines| format!(r#""lines":[{}]"#, lines.join(",")));
        prop::option::weighted(0.9, prop_oneof![4 => lines, 1 => Just(r#""lines":null"#.to_owned())])
    }

    proptest! {
        /// Whatever is read at once is what is read carefully.
        #[test]
        fn a_body_is_understood_in_one_way(
            customer in member("customer_id", &IDS),
            date in member("order_date", &DATES),
            status in member("status", &STATUSES),
            lines in lines(),
            more in prop::option::weighted(0.1, select(&[r#""colour":1"#, r#""status":"PENDING""#, r#""lines":[]"#])),
            end in select(&["", " ", ",", "x", "{}"]),
            role in select(&[Role::Admin, Role::Customer]),
        ) {
            let body = object([customer, date, status, lines, more.map(str::to_owned)]) + end;
            let (at_once, carefully) = read_both_ways(&body, role);
            if at_once.is_some() {
                prop_assert_eq!(at_once, carefully);
            }
        }
    }
}
