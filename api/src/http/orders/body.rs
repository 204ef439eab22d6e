//! The fields that creating and updating share: read from a body, checked, and described.

use std::{borrow::Cow, fmt::Display, ops::RangeInclusive, str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequestParts, Path, rejection::PathRejection},
    http::request::Parts,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;
use shared::domain::{
    order::{MAX_LINES, MAX_QUANTITY, Money, MoneyError, OrderId, ProductId},
    timestamp,
};
use time::Date;
use utoipa::ToSchema;

use crate::{
    http::{
        error::{ApiError, FieldError},
        extract::{FieldErrors, Object, Query, Value, field_code},
        layer::Context,
    },
    orders::rules::LineInput,
};

/// Prices of one piece.
const PRICES: RangeInclusive<Money> = Money::ZERO..=Money::MAX_UNIT_PRICE;

/// The id in the path. What cannot be an id names no order: 404.
#[derive(Clone, Copy, Debug)]
pub struct OrderIdPath(pub OrderId);

/// The same for routes that have no parameters in their query.
#[derive(Clone, Copy, Debug)]
pub struct InPath(pub OrderId);

impl<S: Send + Sync> FromRequestParts<S> for OrderIdPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(text) = text.map_err(|_| ApiError::not_found())?;
        // `i64` would also read `+7` and `007`: one order has one address.
        let id = text.parse::<i64>().ok().filter(|id| id.to_string() == text);
        let id = id.and_then(|id| OrderId::try_from(id).ok()).ok_or_else(ApiError::not_found)?;
        if let Some(context) = parts.extensions.get::<Arc<Context>>() {
            context.set_order(id);
        }
        Ok(Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let OrderIdPath(id) = OrderIdPath::from_request_parts(parts, state).await?;
        Query::reject_all(parts.uri.query())?;
        Ok(Self(id))
    }
}

/// A line as it is ordered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LineInput)]
pub(super) struct LineBody {
    /// What is ordered.
    product_id: ProductId,
    /// How many.
    #[schema(minimum = 1, maximum = 1000)]
    quantity: i32,
    /// The price of one: a number, or the same in a string, from 0 to 999999.99 with at most two decimals.
    #[serde(deserialize_with = "amount")]
    #[schema(schema_with = super::openapi::amount)]
    unit_price: Money,
}

impl LineBody {
    /// The line, where everything is within its bounds.
    pub(super) fn checked(self) -> Option<LineInput> {
        let Self { product_id, quantity, unit_price } = self;
        let may_be = (1..=MAX_QUANTITY).contains(&quantity) && PRICES.contains(&unit_price);
        may_be.then_some(LineInput { product_id, quantity, unit_price })
    }
}

/// Reads a field that may be missing, but not `null`.
pub(super) fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// The same for a field that is a name; serde would also read `{"NAME": null}` as one.
pub(super) fn present_text<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    Cow::<str>::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

/// Reads an amount from a number, with every digit, or from the same in a string.
fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    let text = Value::new(raw, String::new()).decimal().map_err(|_| D::Error::custom("not an amount"))?;
    text.parse().map_err(D::Error::custom)
}

/// Reads `lines`.
pub(super) fn lines(value: &Value<'_>, faults: &mut FieldErrors) -> Option<Vec<LineInput>> {
    value.array(1..=MAX_LINES, faults, |value, faults| line(&value, faults))
}

fn line(value: &Value<'_>, faults: &mut FieldErrors) -> Option<LineInput> {
    let mut fields = faults.check(Object::from_value(value))?;
    let product_id = fields.required("product_id", Value::id::<ProductId>, faults);
    let quantity = fields.required("quantity", |value| value.integer(1..=MAX_QUANTITY.into()), faults);
    let unit_price = fields.required("unit_price", unit_price, faults);
    fields.reject_unknown(faults);
    let quantity = i32::try_from(quantity?).ok()?;
    Some(LineInput { product_id: product_id?, quantity, unit_price: unit_price? })
}

fn unit_price(value: &Value<'_>) -> Result<Money, FieldError> {
    let out_of_range = || {
        value.error(
            field_code::OUT_OF_RANGE,
            format!("must be between {} and {}", PRICES.start(), PRICES.end()),
        )
    };
    match money(&value.decimal()?) {
        Ok(price) if PRICES.contains(&price) => Ok(price),
        Ok(_) | Err((field_code::OUT_OF_RANGE, _)) => Err(out_of_range()),
        Err((code, detail)) => Err(value.error(code, detail)),
    }
}

/// Reads an amount; the error is a fault's code and detail.
pub(super) fn money(text: &str) -> Result<Money, (&'static str, String)> {
    text.parse().map_err(|error: MoneyError| {
        let code = match error {
            MoneyError::TooManyDecimals => field_code::TOO_MANY_DECIMALS,
            MoneyError::TooLarge => field_code::OUT_OF_RANGE,
            MoneyError::NotANumber => field_code::INVALID_VALUE,
        };
        (code, error.to_string())
    })
}

/// Reads a date; the error is a fault's code and detail. There is no year 0: PostgreSQL calls it 1 BC, and cannot read what
/// it has written for it.
pub(super) fn date(text: &str) -> Result<Date, (&'static str, String)> {
    timestamp::parse_date(text).filter(|date| date.year() > 0).ok_or_else(|| {
        (field_code::INVALID_VALUE, "must be a date, as YYYY-MM-DD, from the year 1 on".to_owned())
    })
}

/// Reads `order_date`: not after today, anywhere on Earth.
pub(super) fn order_date(value: &Value<'_>, latest: Date) -> Result<Date, FieldError> {
    let date = date(&value.string()?).map_err(|(code, detail)| value.error(code, detail))?;
    if date > latest {
        let detail = format!("must not be after {}", timestamp::format_date(latest));
        return Err(value.error(field_code::OUT_OF_RANGE, detail));
    }
    Ok(date)
}
