//! Texts of clients: their length and their characters. The error is the code and the detail of a field error.

use std::ops::RangeInclusive;

use super::field_code;

/// White space for clients whose patterns are those of ECMAScript, but not for Rust: the mark at the beginning of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a text without white space at its ends.
///
/// It is refused and not trimmed: nobody would see that two texts differ, or that they do not.
pub(in crate::http) fn parse_trimmed_text(
    text: &str,
    length: RangeInclusive<usize>,
) -> Result<String, (&'static str, String)> {
    check_text(text, length)?;
    let is_space = |character: char| character.is_whitespace() || character == BYTE_ORDER_MARK;
    if text.starts_with(is_space) || text.ends_with(is_space) {
        return Err((field_code::INVALID_VALUE, "must not begin or end with white space".to_owned()));
    }
    Ok(text.to_owned())
}

/// Checks the characters of a text, and how many there are. PostgreSQL cannot store U+0000, and the others of its kind are not seen.
pub(in crate::http) fn check_text(
    text: &str,
    length: RangeInclusive<usize>,
) -> Result<(), (&'static str, String)> {
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
    fn a_trimmed_text_is_any_visible_one_of_its_length() {
        let longest = "ä".repeat(64);
        for good in ["1", "PO-4711", "№ 7/α", "a b", "'; DROP TABLE orders; --", "\u{1f4e6}", &longest] {
            assert_eq!(parse_trimmed_text(good, 1..=64).as_deref(), Ok(good));
        }
        let too_long = "ä".repeat(65);
        for (bad, code) in [
            ("", field_code::INVALID_LENGTH),
            (&*too_long, field_code::INVALID_LENGTH),
            (" a", field_code::INVALID_VALUE),
            ("a\u{a0}", field_code::INVALID_VALUE),
            ("a\u{3000}", field_code::INVALID_VALUE),
            ("\u{feff}a", field_code::INVALID_VALUE),
            ("a\nb", field_code::INVALID_VALUE),
            ("a\0", field_code::INVALID_VALUE),
            ("a\u{85}b", field_code::INVALID_VALUE),
            ("\u{7f}", field_code::INVALID_VALUE),
        ] {
            assert_eq!(parse_trimmed_text(bad, 1..=64).map_err(|(code, _)| code), Err(code), "{bad:?}");
        }
    }
}
