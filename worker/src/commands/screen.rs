//! The output of commands, and their progress bars.

use std::{
    io::{ErrorKind, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use shared::platform::text::printable;

/// Prints a line, or several, to standard output. Control characters are escaped, because events and errors hold text from
/// outside. If the reader has gone (`| head`), the command ends without an error.
pub(super) fn print_line(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", printable(line, true)) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

/// A progress bar on standard error; invisible if that is not a terminal.
pub(super) fn progress_bar(total: i64, what: &'static str) -> ProgressBar {
    let style = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}";
    let bar = ProgressBar::new(u64::try_from(total).unwrap_or_default()).with_message(what);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A progress display for work whose size is not known beforehand.
pub(super) fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template("{spinner} {msg} {human_pos} {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// `1 event`, `2 events`.
pub(super) fn format_count(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or_default();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
