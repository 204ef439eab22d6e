//! Errors as text, for reasons that are stored and lines that are logged.

use std::{error::Error, fmt::Write as _};

/// The longest reason that is kept: what tells most stands in front.
const LONGEST: usize = 2000;

/// An error with all its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _written = write!(text, ": {error}");
        cause = error.source();
    }
    storable(&text)
}

/// Text as a PostgreSQL column takes it: without NUL, and bounded.
pub(crate) fn storable(text: &str) -> String {
    text.chars().filter(|character| *character != '\0').take(LONGEST).collect()
}
