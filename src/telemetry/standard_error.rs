//! Lines on their way to standard error. Whoever reads them may be gone, slow or out of space,
//! which must change neither a response nor the shutdown: lines are queued, one thread writes
//! them, and those that cannot be written are lost and counted.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use super::metrics::LOG_LINES_LOST;

/// What may wait, about 20,000 lines.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Before the next attempt on a full pipe that somebody has made non-blocking.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(10);

static QUEUE: Queue = Queue::new();

/// Queues a line for people.
pub fn say(text: &str) {
    queue().push(format!("{text}\n").as_bytes());
}

/// Waits until everything queued is written, for at most `limit`. To be called before the program
/// ends.
pub fn flush(limit: Duration) {
    QUEUE.flush(limit);
}

/// The way of the log: takes whole lines, always.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLines;

impl Write for LogLines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        queue().push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The queue of this process, with its thread.
fn queue() -> &'static Queue {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // Not std's handle: its lock would be held while a write blocks.
        let out = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        let started = thread::Builder::new().name("log".to_owned()).spawn(move || match out {
            Ok(out) => QUEUE.write_to(out),
            Err(_) => QUEUE.write_to(io::stderr()),
        });
        started.expect("a system that can start threads");
    });
    &QUEUE
}

struct Queue {
    pending: Mutex<Pending>,
    changed: Condvar,
}

struct Pending {
    lines: Vec<u8>,
    /// Whether lines that were taken out are being written.
    is_writing: bool,
}

impl Queue {
    const fn new() -> Self {
        let pending = Pending { lines: Vec::new(), is_writing: false };
        Self { pending: Mutex::new(pending), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lines: &[u8]) {
        let mut pending = self.lock();
        if pending.lines.len() + lines.len() > QUEUE_BYTES {
            LOG_LINES_LOST.inc_by(count(lines));
            return;
        }
        pending.lines.extend_from_slice(lines);
        drop(pending);
        self.changed.notify_all();
    }

    fn flush(&self, limit: Duration) {
        let is_busy = |pending: &mut Pending| pending.is_writing || !pending.lines.is_empty();
        let _ = self.changed.wait_timeout_while(self.lock(), limit, is_busy);
    }

    /// Writes what is queued, for ever.
    fn write_to(&self, mut out: impl Write) {
        let mut said = LOG_LINES_LOST.get();
        let mut is_torn = false;
        loop {
            let is_empty = |pending: &mut Pending| pending.lines.is_empty();
            let pending = self.changed.wait_while(self.lock(), is_empty);
            let mut pending = pending.unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut pending.lines);
            pending.is_writing = true;
            drop(pending);

            if is_torn {
                is_torn = !write(&mut out, b"\n").is_empty();
            }
            let left = write(&mut out, &lines);
            if left.is_empty() {
                let lost = LOG_LINES_LOST.get();
                // Queued, like every other line, so not while the queue may be full.
                if lost > said && self.lock().lines.is_empty() {
                    let lines = lost - said;
                    tracing::warn!(lines, "log lines were lost: standard error did not take them");
                    said = lost;
                }
            } else {
                LOG_LINES_LOST.inc_by(count(left));
                let written = lines.len() - left.len();
                is_torn |= written > 0 && lines[written - 1] != b'\n';
            }
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }
}

/// Writes all of it, or as much as can be. Returns what is left.
fn write<'a>(out: &mut impl Write, mut text: &'a [u8]) -> &'a [u8] {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => break,
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PIPE_PAUSE),
            Err(_) => break,
        }
    }
    text
}

fn count(lines: &[u8]) -> u64 {
    lines.split(|byte| *byte == b'\n').count() as u64 - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Takes so many bytes, then fails.
    struct Small(usize, Vec<u8>);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.0).min(3);
            self.0 -= taken;
            self.1.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_left() {
        let mut out = Small(8, Vec::new());
        let left = write(&mut out, b"one\ntwo\nthree\nfour\n");
        assert_eq!((&*out.1, left), (&b"one\ntwo\n"[..], &b"three\nfour\n"[..]));
        assert_eq!(count(left), 2);
        assert_eq!(write(&mut Small(100, Vec::new()), b"one\n"), b"");
    }

    /// Blocks until it is told how each write goes.
    struct Stalled(mpsc::Receiver<bool>, mpsc::Sender<Vec<u8>>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let is_good = self.0.recv().unwrap_or(true);
            let _ = self.1.send(bytes.to_owned());
            if is_good { Ok(bytes.len()) } else { Err(ErrorKind::BrokenPipe.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time() {
        static QUEUE: Queue = Queue::new();
        let (go, going) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        thread::spawn(|| QUEUE.write_to(Stalled(going, sender)));
        let before = LOG_LINES_LOST.get();
        let line = [b"x".repeat(QUEUE_BYTES / 2 - 1), b"\n".to_vec()].concat();
        QUEUE.push(b"first\n");
        while !QUEUE.lock().is_writing {
            thread::yield_now();
        }
        // Two fit beside the one that is being written.
        for _ in 0..5 {
            QUEUE.push(&line);
        }
        assert_eq!(LOG_LINES_LOST.get() - before, 3);
        QUEUE.flush(Duration::from_millis(10));
        assert!(QUEUE.lock().is_writing, "a bounded wait");
        // The first is refused, the two go through in one piece.
        go.send(false).expect("it waits");
        go.send(true).expect("it waits");
        assert_eq!(written.recv().expect("written"), b"first\n");
        assert_eq!(written.recv().expect("written").len(), QUEUE_BYTES);
        QUEUE.flush(Duration::from_secs(30));
        assert_eq!(LOG_LINES_LOST.get() - before, 4);
    }
}
