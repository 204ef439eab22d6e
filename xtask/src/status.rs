//! Telling what happens.

use std::io::Write;

/// Prints a line. Unlike `println!` it does not panic when the terminal or the pipe is closed: stopping in good order
/// matters more than telling of it.
pub(crate) fn say(line: impl AsRef<str>) {
    let _closed = writeln!(std::io::stdout(), "{}", line.as_ref());
}
