//! Code points that are no characters, and that not every broker takes.

/// Writes U+FFFE and U+FFFF as escapes: they are no characters, and SQS takes no message with them. In JSON they can stand only in
/// texts, where the escapes mean the same.
pub(super) fn escape_noncharacters(json: String) -> String {
    if json.contains('\u{fffe}') || json.contains('\u{ffff}') {
        json.replace('\u{fffe}', r"\ufffe").replace('\u{ffff}', r"\uffff")
    } else {
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noncharacters_are_escapes_and_mean_the_same() {
        for text in ["", "a", "\u{fffd}\\u{fffe}", "\u{fffe}", "\\\u{ffff}\"", "a\u{fffe}\u{ffff}\u{10ffff}z"]
        {
            let json = escape_noncharacters(serde_json::to_string(text).unwrap());
            assert!(!json.contains(['\u{fffe}', '\u{ffff}']), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
