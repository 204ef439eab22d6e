//! Log lines on their way to standard output: collected for a moment, written together.
//!
//! A system call for each line would be a good part of what a cached read costs. So lines wait at most [`PAUSE`], those
//! that tell of trouble not at all, and whatever waits at the end of the process is written by [`Flush`]. Only a process
//! that is killed takes its last moment with it.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line may wait.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that may wait. Whoever logs more than the output takes writes it out itself: no line is ever dropped.
const MOST: usize = 1024 * 1024;

/// Collects lines; clones share them.
#[derive(Clone)]
pub(super) struct Lines(Arc<Inner>);

struct Inner {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Held while writing, so that lines keep their order.
    output: Mutex<Output>,
}

struct Output {
    to: Box<dyn Write + Send>,
    /// Room for the next lines: what was written last, emptied.
    spare: Vec<u8>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    urgent: bool,
}

impl Lines {
    /// Starts the thread that writes to `output`.
    pub(super) fn start(output: Box<dyn Write + Send>) -> io::Result<Self> {
        let lines = Self(Arc::new(Inner {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            output: Mutex::new(Output { to: output, spare: Vec::new() }),
        }));
        let inner = Arc::clone(&lines.0);
        thread::Builder::new().name("log".to_owned()).spawn(move || inner.keep_writing())?;
        Ok(lines)
    }

    /// Writes what waits now.
    pub(super) fn flush(&self) {
        self.0.write();
    }
}

impl Inner {
    fn keep_writing(&self) {
        loop {
            let waiting = self.lock();
            let waiting = self
                .changed
                .wait_while(waiting, |waiting| waiting.bytes.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let collected = self.changed.wait_timeout_while(waiting, PAUSE, |waiting| !waiting.urgent);
            drop(collected);
            self.write();
        }
    }

    fn write(&self) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = Waiting { bytes: mem::take(&mut output.spare), urgent: false };
        let Waiting { mut bytes, .. } = mem::replace(&mut *self.lock(), empty);
        // Nobody can be told that the log cannot be written.
        let _lost = output.to.write_all(&bytes).and_then(|()| output.to.flush());
        bytes.clear();
        output.spare = bytes;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one line.
pub(super) struct Line<'a> {
    lines: &'a Inner,
    urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let full = {
            let mut waiting = self.lines.lock();
            let (first, was_urgent) = (waiting.bytes.is_empty(), waiting.urgent);
            waiting.bytes.extend_from_slice(line);
            waiting.urgent |= self.urgent;
            if first || waiting.urgent != was_urgent {
                self.lines.changed.notify_one();
            }
            waiting.bytes.len() > MOST
        };
        if full {
            self.lines.write();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: &self.0, urgent: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { lines: &self.0, urgent: *metadata.level() <= Level::WARN }
    }
}

/// Writes the last lines when it is dropped, at the end of the process.
#[must_use = "the last lines of the log are written when this is dropped"]
#[derive(Default)]
pub struct Flush(pub(super) Option<Lines>);

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(lines) = &self.0 {
            lines.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_many_threads_arrive_whole_and_each_once() {
        let kept = Kept::default();
        let lines = Lines::start(Box::new(kept.clone())).unwrap();
        thread::scope(|scope| {
            for writer in 0..4 {
                let lines = &lines;
                scope.spawn(move || {
                    for line in 0..1000 {
                        let line = format!("{writer} {line} {}\n", "x".repeat(400));
                        lines.make_writer().write_all(line.as_bytes()).unwrap();
                    }
                });
            }
        });
        drop(Flush(Some(lines)));
        let written = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let mut next = [0; 4];
        for line in written.lines() {
            let mut parts = line.split(' ');
            let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
            let (writer, line) = (number(), number());
            assert_eq!(line, next[writer], "the lines of one thread keep their order");
            assert_eq!(parts.next().unwrap().len(), 400);
            next[writer] += 1;
        }
        assert_eq!(next, [1000; 4]);
    }

    #[test]
    fn a_line_does_not_wait_for_the_end_of_the_process() {
        let kept = Kept::default();
        let lines = Lines::start(Box::new(kept.clone())).unwrap();
        lines.make_writer().write_all(b"one\n").unwrap();
        let start = std::time::Instant::now();
        while kept.0.lock().unwrap().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "the line is written by itself");
            thread::yield_now();
        }
    }
}
