//! Times as RFC 3339 in UTC with six decimals and a `Z`, and dates as `YYYY-MM-DD`: every answer and event writes them so.

use std::fmt;

use serde::{
    Deserializer, Serializer,
    de::{self, Unexpected, Visitor},
};
use time::{Date, Month, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// `2025-01-20T10:00:00.123456Z`.
pub fn format(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let (hour, minute, second, micros) = at.time().as_hms_micro();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", format_date(at.date()))
}

/// `2025-01-20`. Years have four digits: clients cannot send others, and PostgreSQL's clock stays within them.
pub fn format_date(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year().unsigned_abs(), u8::from(date.month()), date.day())
}

/// Reports whether a time can be written and stored: its year is between 1 and 9999 in UTC.
pub fn is_storable(at: OffsetDateTime) -> bool {
    at.checked_to_offset(UtcOffset::UTC).is_some_and(|at| (1..=9999).contains(&at.year()))
}

/// Reads any RFC 3339 time that is [storable](is_storable), as UTC.
pub fn parse_rfc3339(text: &str) -> Option<OffsetDateTime> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    is_storable(at).then(|| at.to_offset(UtcOffset::UTC))
}

/// Reads `YYYY-MM-DD` with a four-digit year, and nothing else.
pub fn parse_date(text: &str) -> Option<Date> {
    let [year @ .., b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    if year.len() != 4 {
        return None;
    }
    let month = Month::try_from(u8::try_from(number(&[*m1, *m2])?).ok()?).ok()?;
    let day = u8::try_from(number(&[*d1, *d2])?).ok()?;
    Date::from_calendar_date(i32::try_from(number(year)?).ok()?, month, day).ok()
}

/// The number that some decimal digits stand for.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number * 10 + char::from(*digit).to_digit(10)?))
}

/// Serialises a time with [`format()`].
pub fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*at))
}

/// Reads with [`parse_rfc3339`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    deserializer.deserialize_str(Text { parse: parse_rfc3339, expected: "a time as RFC 3339 writes it" })
}

/// Parses a borrowed text.
struct Text<F> {
    parse: F,
    expected: &'static str,
}

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// The same for dates, as `#[serde(with = "timestamp::date")]`.
pub mod date {
    use serde::{Deserializer, Serializer};

    /// Serialises as `YYYY-MM-DD`.
    pub fn serialize<S: Serializer>(date: &time::Date, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_date(*date))
    }

    /// Reads `YYYY-MM-DD`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<time::Date, D::Error> {
        deserializer.deserialize_str(super::Text { parse: super::parse_date, expected: "a date, YYYY-MM-DD" })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::{date, datetime};

    use super::*;

    #[test]
    fn times_and_dates_are_written_with_all_their_digits() {
        assert_eq!(
            format(datetime!(2025-01-20 10:00:00.123456789 UTC)).as_str(),
            "2025-01-20T10:00:00.123456Z"
        );
        assert_eq!(
            format(datetime!(0987-12-31 23:59:59.000001 +01:00)).as_str(),
            "0987-12-31T22:59:59.000001Z"
        );
        assert_eq!(format_date(date!(2024 - 02 - 29)).as_str(), "2024-02-29");
    }

    #[test]
    fn a_date_in_another_form_is_refused() {
        for wrong in [
            "",
            "2025-1-20",
            "2025-02-30",
            "2025-13-01",
            "2025/01/20",
            "+025-01-20",
            "02025-01-20",
            "2025-01-2٣",
        ] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_beyond_the_years_1_to_9999_are_refused_also_by_their_offset() {
        for (text, expected) in [
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00.000000Z")),
            ("9999-12-31T23:59:59.999999Z", Some("9999-12-31T23:59:59.999999Z")),
            ("9999-12-31T23:59:59+23:59", Some("9999-12-31T00:00:59.000000Z")),
            ("9999-12-31T23:59:59-00:01", None),
            ("0001-01-01T00:00:00+00:01", None),
            ("0000-12-31T23:59:59Z", None),
            ("0000-01-01T00:00:00+23:59", None),
            ("-4713-01-01T00:00:00Z", None),
            ("10000-01-01T00:00:00Z", None),
        ] {
            let read = parse_rfc3339(text).map(format);
            assert_eq!(read.as_deref(), expected, "{text}");
        }
        assert_eq!(parse_rfc3339("0000-12-31T23:59:59.999999Z"), None);
    }

    proptest::proptest! {
        #[test]
        fn a_time_reads_as_it_was_written(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            proptest::prop_assert_eq!(parse_rfc3339(&format(at)), Some(at));
            proptest::prop_assert_eq!(parse_date(&format_date(at.date())), Some(at.date()));
        }
    }
}
