//! Exact money: a decimal with at most two places, never a float.

use std::{fmt, iter::Sum, str::FromStr};

use rust_decimal::Decimal;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use super::number::Number;

/// An amount with two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Money(Decimal);

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number.
    #[error("must be a decimal number")]
    NotANumber,
    /// A number beyond every amount: more than 24 digits before the point.
    #[error("must be an amount of at most 24 digits")]
    TooLarge,
    /// A third decimal that is not zero; amounts are never rounded.
    #[error("must have at most two decimals")]
    TooManyDecimals,
}

impl Money {
    /// Nothing to pay.
    pub const ZERO: Self = Self(Decimal::ZERO);
    /// The highest unit price: 999999.99.
    pub const MAX_UNIT_PRICE: Self = Self(Decimal::from_parts(99_999_999, 0, 0, false, 2));

    /// Takes a decimal that has no digit beyond the second place.
    pub fn new(amount: Decimal) -> Result<Self, MoneyError> {
        // Trailing zeros are the same amount: `25.500` is `25.50`. Negative zero is zero.
        let mut amount = amount.normalize();
        if amount.scale() > 2 {
            return Err(MoneyError::TooManyDecimals);
        }
        if amount.is_zero() {
            amount = Decimal::ZERO;
        }
        amount.rescale(2);
        Ok(Self(amount))
    }

    /// The amount as a decimal with two places, as the column holds it.
    pub const fn amount(self) -> Decimal {
        self.0
    }

    /// `self * quantity`, exact.
    #[must_use]
    pub fn times(self, quantity: i32) -> Self {
        Self(self.0 * Decimal::from(quantity))
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    /// Reads a JSON number's text (`25.5`, `1e2`, `-0`) exactly.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let number = Number::parse(text).ok_or(MoneyError::NotANumber)?;
        if number.decimals() > 2 {
            return Err(MoneyError::TooManyDecimals);
        }
        let hundredths = number.times_power_of_ten(2).ok_or(MoneyError::TooLarge)?;
        Ok(Self(Decimal::from_i128_with_scale(hundredths, 2)))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.fold(Self::ZERO.0, |total, amount| total + amount.0))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.0)
    }
}

impl Serialize for Money {
    /// Always a string with two decimals: `"25.50"`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    /// Reads what [`Money`] serialises to; requests are read by the API's own decoder.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AmountVisitor)
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Money;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount as text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, MoneyError> {
        text.parse::<Money>().map(|money| money.to_string())
    }

    #[test]
    fn equal_amounts_read_equal_however_they_are_written() {
        for text in ["25.5", "25.50", "25.500", "255e-1", "0.255e2", "2.55E+1"] {
            assert_eq!(read(text).as_deref(), Ok("25.50"), "{text}");
        }
        assert_eq!(read("1e2").as_deref(), Ok("100.00"));
        assert_eq!(read("0.1").as_deref(), Ok("0.10"));
        for zero in ["0", "-0", "-0.00", "0e99999", "0.000000"] {
            assert_eq!(read(zero).as_deref(), Ok("0.00"), "{zero}");
        }
    }

    #[test]
    fn a_third_decimal_is_an_error_and_never_rounded() {
        assert_eq!(read("25.505"), Err(MoneyError::TooManyDecimals));
        assert_eq!(read("0.1000000000000000055"), Err(MoneyError::TooManyDecimals));
        assert_eq!(read("1e-3"), Err(MoneyError::TooManyDecimals));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "", "-", ".", "1.", ".5", "1_000", "+1", "0x10", "NaN", "inf", "1e", "1e2.5", "٣", " 1", "1,50",
            "12abc", "5.", "--1", "1e+-1", "1-1",
        ] {
            assert_eq!(read(text), Err(MoneyError::NotANumber), "{text}");
        }
    }

    #[test]
    fn many_digits_are_judged_by_what_they_say() {
        let zeros = "0".repeat(40);
        assert_eq!(read(&format!("1.1{zeros}")).as_deref(), Ok("1.10"));
        assert_eq!(read(&format!("{zeros}1.1")).as_deref(), Ok("1.10"));
        assert_eq!(read(&format!("1{zeros}e-40")).as_deref(), Ok("1.00"));
        assert_eq!(read(&format!("0.{zeros}11e41")).as_deref(), Ok("1.10"));
        assert_eq!(read(&format!("1.1{zeros}1")), Err(MoneyError::TooManyDecimals));
        assert_eq!(read("1e-99999999999999999999"), Err(MoneyError::TooManyDecimals));
        for large in [format!("1{zeros}"), "1e400".into(), "-1e400".into(), "1e99999999999999999999".into()] {
            assert_eq!(read(&large), Err(MoneyError::TooLarge), "{large}");
        }
        assert_eq!(read("999999999999999999999999.99").as_deref(), Ok("999999999999999999999999.99"));
    }

    #[test]
    fn the_largest_order_is_exact() {
        let total: Money = (0..50).map(|_| Money::MAX_UNIT_PRICE.times(1000)).sum();
        assert_eq!(total.to_string(), "49999999500.00");
    }
}
