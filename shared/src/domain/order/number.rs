//! Decimal numbers as clients write them, exact however many digits they have.

/// A decimal number: `digits × 10^exponent`, without zeros at either end of the digits. Zero has none.
///
/// A `Decimal` holds 28 digits; whether a longer text is too large, too fine, or a small number with many zeros shows only
/// here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    negative: bool,
    digits: String,
    exponent: i64,
}

/// Far beyond every bound, and still safe to add to.
const FAR: i64 = i64::MAX / 4;

impl Number {
    /// Reads a number in JSON's grammar; leading zeros are allowed. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (text, 0),
        };
        let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if all_digits(fraction) => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        if !all_digits(whole) {
            return None;
        }
        let all = [whole, fraction].concat();
        let digits = all.trim_end_matches('0');
        let zeros = all.len() - digits.len();
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let shift = i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
        Some(Self { negative, digits, exponent: exponent.saturating_add(shift) })
    }

    /// Digits behind the point that are not zero.
    pub(super) fn decimals(&self) -> u64 {
        if self.exponent < 0 { self.exponent.unsigned_abs() } else { 0 }
    }

    /// Whether there are none.
    pub fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    /// The number, if it is whole and fits.
    pub fn to_i64(&self) -> Option<i64> {
        i64::try_from(self.times_power_of_ten(0)?).ok()
    }

    /// The number `× 10^places`, if it is whole then and has at most 26 digits.
    pub(super) fn times_power_of_ten(&self, places: u8) -> Option<i128> {
        let zeros = usize::try_from(self.exponent.checked_add(places.into())?).ok()?;
        if self.digits.is_empty() {
            return Some(0);
        }
        if self.digits.len().checked_add(zeros)? > 26 {
            return None;
        }
        let magnitude: i128 = format!("{}{}", self.digits, "0".repeat(zeros)).parse().ok()?;
        Some(if self.negative { -magnitude } else { magnitude })
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An exponent of any length; one that no number needs counts as [`FAR`].
fn read_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !all_digits(digits) {
        return None;
    }
    let exponent = digits.parse().unwrap_or(FAR).min(FAR);
    Some(if negative { -exponent } else { exponent })
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    #[test]
    fn integers_are_read_exactly_to_the_ends_of_their_range() {
        for (text, number) in [
            ("0", Some(0)),
            ("-0.0e7", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("9.223372036854775807e18", Some(i64::MAX)),
            ("1e18", Some(10_i64.pow(18))),
            ("1e99999999999999999999999", None),
            ("0e99999999999999999999999", Some(0)),
            ("100000000000000000000000000000000000000000e-41", Some(1)),
            ("1.5", None),
            ("1e-99999999999999999999999", None),
        ] {
            assert_eq!(Number::parse(text).and_then(|number| number.to_i64()), number, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_number_is_what_a_decimal_reads(text in r"-?[0-9]{1,12}(\.[0-9]{1,10})?") {
            let number = Number::parse(&text).unwrap();
            let decimal = Decimal::from_str_exact(&text).unwrap().normalize();
            proptest::prop_assert_eq!(number.is_integer(), decimal.scale() == 0);
            proptest::prop_assert_eq!(number.decimals(), u64::from(decimal.scale()));
            let scaled = number.times_power_of_ten(10).unwrap();
            proptest::prop_assert_eq!(Decimal::from_i128_with_scale(scaled, 10).normalize(), decimal);
        }

        #[test]
        fn any_text_is_read_or_refused(text in r"[-+0-9.eE]{0,12}|.{0,12}") {
            let is_json = serde_json::from_str::<serde_json::Number>(&text).is_ok();
            // JSON knows neither leading zeros nor space around a number as part of it.
            if is_json && text.trim() == text {
                proptest::prop_assert!(Number::parse(&text).is_some());
            }
        }
    }
}
