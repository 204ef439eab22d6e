//! Reading the fields of an order that are the client's own: its reference and its metadata.

use shared::domain::order::{
    MAX_METADATA_ENTRIES, MAX_METADATA_KEY, MAX_METADATA_VALUE, MAX_REFERENCE, Metadata,
};

use crate::http::{
    error::FieldError,
    extract::{FieldErrors, Object, Value, check_text, parse_trimmed_text},
};

/// Reads a reference; the error is the code and the detail of a field error.
pub(super) fn parse_reference(text: &str) -> Result<String, (&'static str, String)> {
    parse_trimmed_text(text, 1..=MAX_REFERENCE)
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
