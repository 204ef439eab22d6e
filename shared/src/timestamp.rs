//! RFC 3339 in UTC with six decimals and a `Z`, and plain dates: the one way times are written here.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
use time::{
    OffsetDateTime, UtcOffset,
    format_description::{StaticFormatDescription, well_known::Rfc3339},
    macros::format_description,
};

const FORMAT: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
const DATE: StaticFormatDescription = format_description!("[year]-[month]-[day]");

/// `2025-01-20T10:00:00.123456Z`.
pub fn format(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).format(&FORMAT).unwrap_or_default()
}

/// `2025-01-20`.
pub fn format_date(date: time::Date) -> String {
    date.format(&DATE).unwrap_or_default()
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
    serializer.serialize_str(&format(*at))
}

/// Reads any RFC 3339 time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)
}

/// The same for dates, as `#[serde(with = "timestamp::date")]`.
pub mod date {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    /// Serialises as `YYYY-MM-DD`.
    pub fn serialize<S: Serializer>(date: &time::Date, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_date(*date))
    }

    /// Reads `YYYY-MM-DD`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<time::Date, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        super::parse_date(&text).ok_or_else(|| D::Error::custom("a date is written YYYY-MM-DD"))
    }
}
