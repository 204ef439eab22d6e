//! Progress of a run on the terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over all steps of a run, with what is being done now.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar over this many steps.
    pub fn new(steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:24}] {pos}/{len} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Begins a step.
    pub fn step(&self, message: String) {
        self.0.inc(1);
        if !std::io::stderr().is_terminal() {
            // A bar draws nothing there, but a log needs the message, too.
            println!("[{}/{}] {message}", self.0.position(), self.0.length().unwrap_or_default());
        }
        self.0.set_message(message);
    }

    /// Says more about the step.
    pub fn set_message(&self, message: String) {
        self.0.set_message(message);
    }

    /// A line that stays.
    pub fn print_line(&self, line: &str) {
        self.0.suspend(|| println!("{line}"));
    }

    /// The bar goes away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
