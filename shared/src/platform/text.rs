//! Makes text from outside safe for terminals and logs.

use std::{borrow::Cow, fmt::Write as _};

/// Escapes every character that a terminal could interpret: control characters (among them ESC and its 8-bit forms) and
/// those that change the writing direction. Line breaks stay if `keep_lines` is set.
///
/// The escapes are those of JSON, so that JSON keeps its meaning.
pub fn printable(text: &str, keep_lines: bool) -> Cow<'_, str> {
    let acts = |character: char| acts_on_terminals(character) && !(keep_lines && character == '\n');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if acts(character) {
            // Writing to a string cannot fail. All of them are within the basic plane.
            let _written = write!(printable, "\\u{:04x}", u32::from(character));
        } else {
            printable.push(character);
        }
    }
    Cow::Owned(printable)
}

/// Whether a terminal may interpret the character instead of showing it.
fn acts_on_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_interprets_are_escaped_and_json_keeps_its_meaning() {
        assert_eq!(printable("Grüße, 価格 \u{1f600}", false), "Grüße, 価格 \u{1f600}");
        assert_eq!(printable("\u{1b}[2J\u{9b}31m\r\u{7f}\0", true), r"\u001b[2J\u009b31m\u000d\u007f\u0000");
        assert_eq!(printable("\u{202e}txt.exe\u{2066}", true), r"\u202etxt.exe\u2066");
        assert_eq!(printable("a\nb", true), "a\nb");
        assert_eq!(printable("a\nb", false), r"a\u000ab");
        let json = serde_json::Value::from("\u{9b}\u{1b}\u{202e}\n").to_string();
        let escaped = printable(&json, false);
        assert!(escaped.is_ascii(), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), "\u{9b}\u{1b}\u{202e}\n");
    }
}
