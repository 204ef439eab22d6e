//! Reading the bodies of requests that create and update orders, with all their errors.

use std::ops::RangeInclusive;

use shared::domain::{
    order::{
        LineId, MAX_LINES, MAX_QUANTITY, MAX_VERSION, Metadata, Money, MoneyError, OrderId, OrderStatus,
        ProductId,
    },
    timestamp,
};
use time::{Date, OffsetDateTime};

use super::own_fields::{read_metadata, read_reference};
use crate::{
    auth::{Action, Caller, Extent},
    http::{
        error::{ApiError, Code, FieldError},
        extract::{FieldErrors, Object, Value, field_code},
    },
    orders::input::{LineInput, NewOrder, OnError, OrderUpdate},
};

/// Prices of one piece.
const PRICES: RangeInclusive<Money> = Money::ZERO..=Money::MAX_UNIT_PRICE;

/// Orders of one request.
pub(super) const MAX_ORDERS: usize = 100;

/// Where an order is read from, which decides on the fields that it can have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A request: the fields that a client sets.
    Request,
    /// A file: also those that an export has beside them.
    File,
}

/// Reads the body of a creation. `latest` is the last date that an order can have.
pub(super) fn parse_new_order(body: &[u8], caller: Caller, latest: Date) -> Result<NewOrder, ApiError> {
    parse_order(Object::parse(body)?, Source::Request, caller, latest)
}

/// Reads an order of a file: the same fields, and also those that an export has beside them, so that an export can be imported.
/// They must be well-formed, and the total that of the lines; the new order gets its own.
pub(super) fn parse_imported_order(row: &[u8], caller: Caller, latest: Date) -> Result<NewOrder, ApiError> {
    parse_order(Object::parse(row)?, Source::File, caller, latest)
}

/// Reads the body of a request that creates several orders: what to do on errors, and each order or its errors.
pub(super) fn parse_new_orders(
    body: &[u8],
    caller: Caller,
    latest: Date,
) -> Result<(OnError, Vec<Result<NewOrder, ApiError>>), ApiError> {
    let mut errors = FieldErrors::new();
    let mut fields = Object::parse(body)?;
    let on_error = fields.optional("on_error", Value::parsed, &mut errors).map(Option::unwrap_or_default);
    let parse_item = |value: Value<'_>| {
        let item = Object::from_value(&value).map_err(|error| ApiError::validation(vec![error]))?;
        parse_order(item, Source::Request, caller, latest)
    };
    let orders = fields.required_value("orders", &mut errors);
    let orders =
        orders.and_then(|value| value.array(1..=MAX_ORDERS, &mut errors, |value, _| Some(parse_item(value))));
    fields.reject_unknown(&mut errors);
    errors.into_result(|| Some((on_error?, orders?)))
}

fn parse_order(
    mut fields: Object<'_>,
    source: Source,
    caller: Caller,
    latest: Date,
) -> Result<NewOrder, ApiError> {
    let mut errors = FieldErrors::new();
    let customer_id = match caller.extent(Action::ChangeOrders) {
        Extent::All => fields.required("customer_id", Value::id, &mut errors),
        Extent::Own | Extent::Nothing => fields
            .optional("customer_id", Value::id, &mut errors)
            .map(|named| named.unwrap_or(caller.customer_id)),
    };
    let order_date = fields.required("order_date", |value| parse_order_date(value, latest), &mut errors);
    let status = fields.optional("status", parse_first_status, &mut errors);
    let lines = fields.required_value("lines", &mut errors);
    let lines = lines.and_then(|value| parse_lines(&value, source, &mut errors));
    let reference = fields.optional("reference", read_reference, &mut errors);
    let metadata = match fields.value("metadata") {
        Some(value) => read_metadata(&value, &mut errors),
        None => Some(Metadata::default()),
    };
    if source == Source::File {
        check_exported_fields(&mut fields, lines.as_deref(), &mut errors);
    }
    fields.reject_unknown(&mut errors);
    let new = errors.into_result(|| {
        Some(NewOrder {
            customer_id: customer_id?,
            order_date: order_date?,
            status: status?.unwrap_or(OrderStatus::Pending),
            lines: lines?,
            reference: reference?.flatten(),
            metadata: metadata?,
        })
    })?;
    if caller.may(Action::ChangeOrders, new.customer_id) {
        Ok(new)
    } else {
        Err(ApiError::new(Code::Forbidden, "a customer may only place orders of its own"))
    }
}

/// Reads the fields of an exported order that a client cannot set.
fn check_exported_fields(fields: &mut Object<'_>, lines: Option<&[LineInput]>, errors: &mut FieldErrors) {
    fields.optional("id", Value::id::<OrderId>, errors);
    fields.optional("version", |value| value.integer(1..=MAX_VERSION), errors);
    fields.optional("created_at", parse_time, errors);
    fields.optional("updated_at", parse_time, errors);
    let check_total = |value: &Value<'_>| {
        let total = parse_money(&value.decimal()?).map_err(|(code, detail)| value.error(code, detail))?;
        let sum = lines.map(|lines| lines.iter().map(LineInput::total).sum::<Money>());
        match sum {
            Some(sum) if sum != total => {
                Err(value.error(field_code::INVALID_VALUE, format!("the lines make {sum}")))
            }
            _ => Ok(()),
        }
    };
    fields.optional("total_amount", check_total, errors);
}

fn parse_time(value: &Value<'_>) -> Result<OffsetDateTime, FieldError> {
    timestamp::parse_rfc3339(&value.string()?)
        .ok_or_else(|| value.error(field_code::INVALID_VALUE, "must be a time, as 2025-01-20T10:00:00Z"))
}

/// Reads the body of an update. `latest` is the last date that an order can have.
pub(super) fn parse_update(body: &[u8], latest: Date) -> Result<OrderUpdate, ApiError> {
    let mut errors = FieldErrors::new();
    let mut fields = Object::parse(body)?;
    let status = fields.optional("status", Value::parsed, &mut errors);
    let order_date = fields.optional("order_date", |value| parse_order_date(value, latest), &mut errors);
    let lines = match fields.value("lines") {
        Some(value) => parse_lines(&value, Source::Request, &mut errors).map(Some),
        None => Some(None),
    };
    let reference = fields.optional("reference", read_reference, &mut errors);
    let metadata = match fields.value("metadata") {
        Some(value) => read_metadata(&value, &mut errors).map(Some),
        None => Some(None),
    };
    fields.reject_unknown(&mut errors);
    errors.into_result(|| {
        Some(OrderUpdate {
            status: status?,
            order_date: order_date?,
            lines: lines?,
            reference: reference?,
            metadata: metadata?,
        })
    })
}

fn parse_first_status(value: &Value<'_>) -> Result<OrderStatus, FieldError> {
    match value.parsed()? {
        OrderStatus::Pending => Ok(OrderStatus::Pending),
        _ => Err(value.error(field_code::INVALID_VALUE, "an order begins as PENDING")),
    }
}

/// Reads `order_date`: not after today, anywhere on Earth.
fn parse_order_date(value: &Value<'_>, latest: Date) -> Result<Date, FieldError> {
    let date = parse_date(&value.string()?).map_err(|(code, detail)| value.error(code, detail))?;
    if date > latest {
        let detail = format!("must not be after {}", timestamp::format_date(latest));
        return Err(value.error(field_code::OUT_OF_RANGE, detail));
    }
    Ok(date)
}

fn parse_lines(value: &Value<'_>, source: Source, errors: &mut FieldErrors) -> Option<Vec<LineInput>> {
    value.array(1..=MAX_LINES, errors, |value, errors| parse_line(&value, source, errors))
}

fn parse_line(value: &Value<'_>, source: Source, errors: &mut FieldErrors) -> Option<LineInput> {
    let mut fields = errors.check(Object::from_value(value))?;
    if source == Source::File {
        fields.optional("id", Value::id::<LineId>, errors);
    }
    let product_id = fields.required("product_id", Value::id::<ProductId>, errors);
    let quantity = fields.required("quantity", |value| value.integer(1..=MAX_QUANTITY.into()), errors);
    let unit_price = fields.required("unit_price", parse_unit_price, errors);
    fields.reject_unknown(errors);
    let quantity = i32::try_from(quantity?).ok()?;
    Some(LineInput { product_id: product_id?, quantity, unit_price: unit_price? })
}

fn parse_unit_price(value: &Value<'_>) -> Result<Money, FieldError> {
    match parse_money(&value.decimal()?) {
        Ok(price) if PRICES.contains(&price) => Ok(price),
        Ok(_) | Err((field_code::OUT_OF_RANGE, _)) => {
            let detail = format!("must be between {} and {}", PRICES.start(), PRICES.end());
            Err(value.error(field_code::OUT_OF_RANGE, detail))
        }
        Err((code, detail)) => Err(value.error(code, detail)),
    }
}

/// Reads an amount; the error is the code and the detail of a field error.
pub(super) fn parse_money(text: &str) -> Result<Money, (&'static str, String)> {
    text.parse().map_err(|error: MoneyError| {
        let code = match error {
            MoneyError::TooManyDecimals => field_code::TOO_MANY_DECIMALS,
            MoneyError::TooLarge => field_code::OUT_OF_RANGE,
            MoneyError::NotANumber => field_code::INVALID_VALUE,
        };
        (code, error.to_string())
    })
}

/// Reads a date; the error is the code and the detail of a field error. There is no year 0: PostgreSQL calls it 1 BC, and
/// cannot read what it has written for it.
pub(super) fn parse_date(text: &str) -> Result<Date, (&'static str, String)> {
    timestamp::parse_date(text).filter(|date| date.year() > 0).ok_or_else(|| {
        (field_code::INVALID_VALUE, "must be a date, as YYYY-MM-DD, from the year 1 on".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};
    use shared::domain::tenant::TenantId;
    use time::macros::date;

    use super::*;
    use crate::auth::Role;

    const LATEST: Date = date!(2025 - 01 - 21);

    fn caller(role: Role) -> Caller {
        Caller::at_home(TenantId::DEFAULT, 7.try_into().unwrap(), role)
    }

    fn parse(body: &str, role: Role) -> Result<NewOrder, ApiError> {
        parse_new_order(body.as_bytes(), caller(role), LATEST)
    }

    fn line(product: i64, quantity: i32, price: &str) -> LineInput {
        LineInput { product_id: product.try_into().unwrap(), quantity, unit_price: price.parse().unwrap() }
    }

    #[test]
    fn the_usual_bodies_are_understood() {
        let body =
            r#"{"order_date":"2025-01-20","lines":[{"product_id":1001,"quantity":2,"unit_price":"25.50"}]}"#;
        let usual = NewOrder {
            customer_id: 7.try_into().unwrap(),
            order_date: date!(2025 - 01 - 20),
            status: OrderStatus::Pending,
            lines: vec![line(1001, 2, "25.50")],
            reference: None,
            metadata: Metadata::default(),
        };
        assert_eq!(parse(body, Role::Customer).unwrap(), usual);
        let body = r#"{ "customer_id": 7, "status": "PENDING", "lines": [ {"unit_price": 1e2, "quantity": 1000, "product_id": 1},
            {"unit_price": 0, "quantity": 1, "product_id": 9223372036854775807} ], "order_date": "2025-01-21" }"#;
        let lines = vec![line(1, 1000, "100"), line(i64::MAX, 1, "0")];
        assert_eq!(parse(body, Role::Customer).unwrap(), NewOrder { order_date: LATEST, lines, ..usual });
    }

    #[test]
    fn fields_that_say_nothing_new_make_no_other_request() {
        let lines = r#""lines":[{"product_id":1,"quantity":1,"unit_price":1}]"#;
        let json = |status: &str| {
            let body = format!(r#"{{"order_date":"2025-01-20",{status}{lines}}}"#);
            serde_json::to_string(&parse(&body, Role::Customer).unwrap()).unwrap()
        };
        let bare = r#"{"customer_id":7,"order_date":"2025-01-20","lines":[{"product_id":1,"quantity":1,"unit_price":"1.00"}]}"#;
        assert_eq!(json(""), bare, "the stored fingerprints of requests depend on these bytes");
        assert_eq!(json(r#""status":"PENDING","reference":null,"metadata":{},"#), bare);
        let own = r#","reference":"A/1","metadata":{"a":"","b":"2"}}"#;
        assert_eq!(json(r#""metadata":{"b":"2","a":""},"reference":"A\/1","#), bare.replace("]}", "]") + own);
    }

    #[test]
    fn an_update_keeps_the_json_that_fingerprints_were_made_of() {
        let json =
            |body: &str| serde_json::to_string(&parse_update(body.as_bytes(), LATEST).unwrap()).unwrap();
        let nothing = r#"{"status":null,"order_date":null,"lines":null}"#;
        assert_eq!(json("{}"), nothing, "the stored fingerprints of requests depend on these bytes");
        let date = r#"{"status":null,"order_date":"2025-01-20","lines":null}"#;
        assert_eq!(json(r#"{"order_date":"2025-01-20"}"#), date);
        let own = r#"{"status":null,"order_date":null,"lines":null,"reference":null,"metadata":{}}"#;
        assert_eq!(json(r#"{"reference":null,"metadata":{}}"#), own, "both are taken away");
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
    const UNIT_PRICES: [&str; 14] = [
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

    const REFERENCES: [&str; 6] = [r#""A-1""#, r#""\u00e9 \\""#, r#"" 1""#, r#""\u0000""#, "null", "1"];
    const METADATA: [&str; 6] =
        [r#"{"b":"\"","a":""}"#, "{}", r#"{"a":"1","a":"2"}"#, r#"{"":"x"}"#, r#"{"a":1}"#, "null"];

    /// A member that is there in three of four cases.
    fn member(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
        prop::option::weighted(0.75, select(values).prop_map(move |value| format!(r#""{name}":{value}"#)))
    }

    fn any_line() -> impl Strategy<Value = String> {
        let members =
            (member("product_id", &IDS), member("quantity", &QUANTITIES), member("unit_price", &UNIT_PRICES));
        members.prop_map(|(product, quantity, price)| object([product, quantity, price]))
    }

    fn object<const N: usize>(members: [Option<String>; N]) -> String {
        format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(","))
    }

    fn any_lines() -> impl Strategy<Value = Option<String>> {
        let usual = Just(r#"{"product_id":1,"quantity":2,"unit_price":3}"#.to_owned());
        let lines = prop::collection::vec(prop_oneof![3 => usual, 1 => any_line()], 0..52);
        let lines = lines.prop_map(|lines| format!(r#""lines":[{}]"#, lines.join(",")));
        prop::option::weighted(0.9, prop_oneof![4 => lines, 1 => Just(r#""lines":null"#.to_owned())])
    }

    proptest! {
        /// What is understood is within the limits, and means the same when it is written out again.
        #[test]
        fn a_body_that_is_understood_reads_the_same_when_written_out_again(
            customer in member("customer_id", &IDS),
            date in member("order_date", &DATES),
            status in member("status", &STATUSES),
            lines in any_lines(),
            reference in member("reference", &REFERENCES),
            metadata in member("metadata", &METADATA),
            more in prop::option::weighted(0.1, select(&[r#""colour":1"#, r#""status":"PENDING""#, r#""lines":[]"#])),
            end in select(&["", " ", ",", "x", "{}"]),
            role in select(&[Role::Admin, Role::Customer]),
        ) {
            let body = object([customer, date, status, lines, reference, metadata, more.map(str::to_owned)]) + end;
            if let Ok(new) = parse(&body, role) {
                prop_assert!(new.order_date <= LATEST && new.order_date.year() > 0);
                prop_assert_eq!(new.status, OrderStatus::Pending);
                prop_assert!((1..=MAX_LINES).contains(&new.lines.len()));
                for line in &new.lines {
                    prop_assert!((1..=MAX_QUANTITY).contains(&line.quantity) && PRICES.contains(&line.unit_price));
                }
                let written = serde_json::to_string(&new).unwrap();
                prop_assert_eq!(parse(&written, role).unwrap(), new);
            }
        }
    }
}
