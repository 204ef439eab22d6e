//! Reading JSON of one form alone: the one in which this project writes it, without space between and with the fields
//! in their order. What does not fit is `None`, and left to a reader of any JSON.

/// A text, and how far it has been read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// At the beginning of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// What has not been read.
    pub(crate) fn rest(self) -> &'a str {
        self.0
    }

    /// Goes beyond `expected`, if that is next.
    pub(crate) fn skip(&mut self, expected: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// Takes the next `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes a whole number that fits 64 bits.
    pub(crate) fn number(&mut self) -> Option<i64> {
        let text = self.0.as_bytes();
        let is_negative = text.first() == Some(&b'-');
        let start = usize::from(is_negative);
        // Counted below zero, where there is room for one more.
        let (mut number, mut end) = (0_i64, start);
        while let Some(digit @ b'0'..=b'9') = text.get(end) {
            number = number.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
            end += 1;
        }
        // JSON knows no leading zeros.
        if end == start || (text[start] == b'0' && end > start + 1) {
            return None;
        }
        self.take(end)?;
        if is_negative { Some(number) } else { number.checked_neg() }
    }

    /// Takes a string that is written without escapes, and gives what is between its quotes.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        self.skip("\"")?;
        let end = self.0.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
        let text = self.take(end)?;
        self.skip("\"")?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_those_of_json() {
        let number = |text: &'static str| {
            let mut cursor = Cursor::new(text);
            cursor.number().map(|number| (number, cursor.rest()))
        };
        assert_eq!(number("120,"), Some((120, ",")));
        assert_eq!(number("0.5"), Some((0, ".5")));
        assert_eq!(number("-9223372036854775808"), Some((i64::MIN, "")));
        for wrong in ["", "-", "01", "-01", "+1", "9223372036854775808", "x"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
        let text = |text: &'static str| {
            let mut cursor = Cursor::new(text);
            cursor.text().map(|text| (text, cursor.rest()))
        };
        assert_eq!(text(r#""ä","#), Some(("ä", ",")));
        assert_eq!(text(r#""""#), Some(("", "")));
        for wrong in ["", "\"", "\"a", r#""\n""#, "\"\n\"", "a"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
        assert_eq!(Cursor::new("ä").take(1), None);
    }
}
