//! Writing log lines to standard output from a background thread, so that no request waits for a system call.
//!
//! No line is dropped. If the reader of the output is slower than the process logs, logging waits for it: a reader that never
//! reads stops the process once the queue is full. At the end of the process the queue is written, for at most a second.

use std::{
    io::{self, BufWriter, Write},
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How long lines are collected before they are written together: waking the thread and a system call for each line would
/// be a noticeable part of what a cached read costs.
const COLLECT: Duration = Duration::from_millis(20);
/// How many lines can wait: about 7 MB.
const MAX_LINES: usize = 16 * 1024;
/// Bytes that one system call writes.
const BUFFER: usize = 64 * 1024;

/// A writer for log lines, and the guard that writes the last ones when it is dropped.
pub(super) fn start(output: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    let output = Collecting(BufWriter::with_capacity(BUFFER, output));
    let builder = NonBlockingBuilder::default().lossy(false).buffered_lines_limit(MAX_LINES);
    builder.thread_name("log").finish(output)
}

/// Waits for further lines before it flushes, which the background thread does whenever its queue is empty.
struct Collecting<W: Write>(BufWriter<W>);

impl<W: Write> Write for Collecting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        thread::sleep(COLLECT);
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex, MutexGuard},
        time::Instant,
    };

    use tracing_subscriber::fmt::MakeWriter as _;

    use super::*;

    /// Keeps what is written. While its lock is held, it blocks as a full pipe does.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Pipe {
        fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_many_threads_arrive_whole_and_each_once_although_the_output_blocks() {
        const LINES: usize = MAX_LINES / 2;
        let pipe = Pipe::default();
        let (writer, guard) = start(pipe.clone());
        let full = pipe.lock();
        thread::scope(|scope| {
            for thread in 0..4 {
                let writer = &writer;
                scope.spawn(move || {
                    for line in 0..LINES {
                        let line = format!("{thread} {line} {}\n", "x".repeat(400));
                        writer.make_writer().write_all(line.as_bytes()).unwrap();
                    }
                });
            }
            thread::sleep(COLLECT * 5);
            drop(full);
        });
        drop(guard);
        let written = String::from_utf8(pipe.lock().clone()).unwrap();
        let mut next = [0; 4];
        for line in written.lines() {
            let mut parts = line.split(' ');
            let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
            let (thread, line) = (number(), number());
            assert_eq!(line, next[thread], "the lines of one thread keep their order");
            assert_eq!(parts.next().unwrap().len(), 400);
            next[thread] += 1;
        }
        assert_eq!(next, [LINES; 4]);
    }

    #[test]
    fn a_line_does_not_wait_for_the_end_of_the_process() {
        let pipe = Pipe::default();
        let (writer, _guard) = start(pipe.clone());
        writer.make_writer().write_all(b"one\n").unwrap();
        let start = Instant::now();
        while pipe.lock().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "the line is written without further calls");
            thread::yield_now();
        }
    }
}
