//! RFC 3339 in UTC with six decimals and a `Z`, and plain dates: the one way times are written here.

use std::{fmt, ops::Range};

use serde::{
    Deserializer, Serializer,
    de::{self, Unexpected, Visitor},
};
use time::{
    OffsetDateTime, UtcOffset,
    format_description::{StaticFormatDescription, well_known::Rfc3339},
    macros::format_description,
};

const DATE: StaticFormatDescription = format_description!("[year]-[month]-[day]");

/// A time or date as text, in place: every order has several of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits<const N: usize>([u8; N]);

impl<const N: usize> Digits<N> {
    /// The text.
    pub fn as_str(&self) -> &str {
        // Digits and marks alone: always text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Puts a number of as many digits as there is room for.
    fn put(&mut self, places: Range<usize>, mut number: u32) {
        for place in self.0[places].iter_mut().rev() {
            *place = b"0123456789"[(number % 10) as usize];
            number /= 10;
        }
    }
}

impl<const N: usize> AsRef<str> for Digits<N> {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> fmt::Display for Digits<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `2025-01-20T10:00:00.123456Z`.
pub fn format(at: OffsetDateTime) -> Digits<27> {
    let at = at.to_offset(UtcOffset::UTC);
    let (hour, minute, second, micros) = at.time().as_hms_micro();
    let mut text = Digits(*b"0000-00-00T00:00:00.000000Z");
    put_date(&mut text, at.date());
    text.put(11..13, hour.into());
    text.put(14..16, minute.into());
    text.put(17..19, second.into());
    text.put(20..26, micros);
    text
}

/// `2025-01-20`.
pub fn format_date(date: time::Date) -> Digits<10> {
    let mut text = Digits(*b"0000-00-00");
    put_date(&mut text, date);
    text
}

/// Years are four digits here; what clients may send, and PostgreSQL's clock, stay within.
fn put_date<const N: usize>(text: &mut Digits<N>, date: time::Date) {
    text.put(0..4, date.year().unsigned_abs());
    text.put(5..7, u8::from(date.month()).into());
    text.put(8..10, date.day().into());
}

/// Reads `YYYY-MM-DD` with a four-digit year, and nothing else.
pub fn parse_date(text: &str) -> Option<time::Date> {
    if text.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return None;
    }
    time::Date::parse(text, &DATE).ok()
}

/// Serialises a time with [`format`]; reads any RFC 3339 time.
pub fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(format(*at).as_str())
}

/// Reads any RFC 3339 time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    deserializer.deserialize_str(Text { parse, expected: "a time as RFC 3339 writes it" })
}

/// Reads a text where it stands, without a copy.
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
        serializer.serialize_str(super::format_date(*date).as_str())
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

    proptest::proptest! {
        #[test]
        fn a_time_reads_as_it_was_written(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            proptest::prop_assert_eq!(OffsetDateTime::parse(format(at).as_str(), &Rfc3339), Ok(at));
            proptest::prop_assert_eq!(parse_date(format_date(at.date()).as_str()), Some(at.date()));
        }
    }
}
