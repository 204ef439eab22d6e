//! Status lines on the terminal.

use std::io::Write;

/// Prints a line. Unlike `println!` it does not panic when the terminal or the pipe is closed: an orderly stop
/// matters more than its report.
pub(crate) fn print_status(line: impl AsRef<str>) {
    let _closed = writeln!(std::io::stdout(), "{}", line.as_ref());
}
