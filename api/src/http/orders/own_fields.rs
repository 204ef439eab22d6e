//! Reading the fields of an order that are the client's own: its reference and its metadata.

use std::ops::RangeInclusive;

use shared::domain::order::{
    MAX_METADATA_ENTRIES, MAX_METADATA_KEY, MAX_METADATA_VALUE, MAX_REFERENCE, Metadata,
};

use crate::http::{
    error::FieldError,
    extract::{FieldErrors, Object, Value, field_code},
};

/// Reads a reference; the error is the code and the detail of a field error.
///
/// White space at an end is refused and not trimmed: nobody would see that two references differ, or that they do not.
pub(super) fn parse_reference(text: &str) -> Result<String, (&'static str, String)> {
    check_text(text, 1..=MAX_REFERENCE)?;
    if text.trim() != text {
        let detail = "must not begin or end with white space".to_owned();
        return Err((field_code::INVALID_VALUE, detail));
    }
    Ok(text.to_owned())
}

/// Reads a field `reference`; `null` is none.
pub(super) fn read_reference(value: &Value<'_>) -> Result<Option<String>, FieldError> {
    if value.is_null() {
        return Ok(None);
    }
    let text = value.string()?;
    parse_reference(&text).map(Some).map_err(|(code, detail)| value.error(code, detail))
}

/// Reads a field `metadata`, with the errors of all its entries.
pub(super) fn read_metadata(value: &Value<'_>, errors: &mut FieldErrors) -> Option<Metadata> {
    let entries = errors.check(Object::from_value(value))?;
    let entries = entries.all(MAX_METADATA_ENTRIES, errors, |key, value| {
        let invalid = |(code, detail): (&'static str, String)| value.error(code, detail);
        check_text(&key, 1..=MAX_METADATA_KEY).map_err(|(code, detail)| {
            // Its place is that of the value, so the text says that it is the key.
            invalid((code, format!("the key {detail}")))
        })?;
        let text = value.string()?;
        check_text(&text, 0..=MAX_METADATA_VALUE).map_err(invalid)?;
        Ok((key.into_owned(), text.into_owned()))
    });
    Some(entries?.into_iter().collect())
}

/// Checks the characters of a text, and how many there are. PostgreSQL cannot store U+0000, and the others of its kind are not seen.
fn check_text(text: &str, length: RangeInclusive<usize>) -> Result<(), (&'static str, String)> {
    // A text of bytes within the limit needs no counting.
    if text.len() > *length.end() && text.chars().count() > *length.end() || text.len() < *length.start() {
        let detail = format!("must have {} to {} characters", length.start(), length.end());
        return Err((field_code::INVALID_LENGTH, detail));
    }
    if text.chars().any(char::is_control) {
        return Err((field_code::INVALID_VALUE, "must not have control characters".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_any_visible_text_of_64_characters() {
        let longest = "ä".repeat(64);
        for good in ["1", "PO-4711", "№ 7/α", "a b", "'; DROP TABLE orders; --", "\u{1f4e6}", &longest] {
            assert_eq!(parse_reference(good).as_deref(), Ok(good));
        }
        let too_long = "ä".repeat(65);
        for (bad, code) in [
            ("", field_code::INVALID_LENGTH),
            (&*too_long, field_code::INVALID_LENGTH),
            (" a", field_code::INVALID_VALUE),
            ("a\u{a0}", field_code::INVALID_VALUE),
            ("a\u{3000}", field_code::INVALID_VALUE),
            ("a\nb", field_code::INVALID_VALUE),
            ("a\0", field_code::INVALID_VALUE),
            ("a\u{85}b", field_code::INVALID_VALUE),
            ("\u{7f}", field_code::INVALID_VALUE),
        ] {
            assert_eq!(parse_reference(bad).map_err(|(code, _)| code), Err(code), "{bad:?}");
        }
    }
}
