//! Errors as text, for stored reasons and for log lines.

use std::{error::Error, fmt::Write as _};

/// The longest text that is stored, in characters. The most important part comes first.
const MAX_LENGTH: usize = 2000;

/// An error with all its causes in one line. A cause that the text before it already contains is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = one_line(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = one_line(error);
        if !text.ends_with(&message) {
            // Writing to a string cannot fail.
            let _written = write!(text, ": {message}");
        }
        cause = error.source();
    }
    storable(&text)
}

fn one_line(error: &dyn Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text that a PostgreSQL column accepts: without NUL, and not longer than 2,000 characters.
pub(crate) fn storable(text: &str) -> String {
    text.chars().filter(|character| *character != '\0').take(MAX_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Message {
        text: &'static str,
        source: Option<Box<Message>>,
    }

    #[test]
    fn an_error_is_one_line_without_repetition() {
        let last = Message { text: "no route:\n  to host", source: None };
        let inner = Message { text: "refused: no route: to host", source: Some(last.into()) };
        let outer = Message { text: "cannot read", source: Some(inner.into()) };
        assert_eq!(chain(&outer), "cannot read: refused: no route: to host");
    }
}
