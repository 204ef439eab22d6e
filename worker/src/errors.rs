//! Errors as text, for reasons that are stored and lines that are logged.

use std::{error::Error, fmt::Write as _};

/// The longest reason that is kept: what tells most stands in front.
const LONGEST: usize = 2000;

/// An error with all its causes in one line. A cause that the error before it has named already is not said again.
pub fn chain(error: &dyn Error) -> String {
    let mut text = one_line(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = one_line(error);
        if !text.ends_with(&said) {
            // Writing to a string cannot fail.
            let _written = write!(text, ": {said}");
        }
        cause = error.source();
    }
    storable(&text)
}

fn one_line(error: &dyn Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text as a PostgreSQL column takes it: without NUL, and bounded.
pub(crate) fn storable(text: &str) -> String {
    text.chars().filter(|character| *character != '\0').take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{says}")]
    struct Said {
        says: &'static str,
        source: Option<Box<Said>>,
    }

    #[test]
    fn an_error_is_one_line_that_says_nothing_twice() {
        let last = Said { says: "no route:\n  to host", source: None };
        let inner = Said { says: "refused: no route: to host", source: Some(last.into()) };
        let outer = Said { says: "cannot read", source: Some(inner.into()) };
        assert_eq!(chain(&outer), "cannot read: refused: no route: to host");
    }
}
