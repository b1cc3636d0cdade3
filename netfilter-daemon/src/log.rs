//! Log lines go to stderr by a thread of their own: who reads them, and has perhaps
//! stopped, holds nobody else up.
//!
//! What finds no room is lost and counted, and the loss is said when there is room again.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    collections::VecDeque,
    io::{self, IsTerminal, stderr},
    mem,
    os::fd::AsFd,
    panic::{self, PanicHookInfo},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::write,
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Bytes of lines that wait; the notes on a large policy fit in.
const ROOM: usize = 256 * 1024;
/// How long an end waits for somebody to read the last lines.
const PATIENCE: Duration = Duration::from_secs(1);

mod journal;

/// There where stderr goes to systemd's journal.
static JOURNAL: OnceLock<Arc<Queue>> = OnceLock::new();

static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines of the log that nobody can read any more, since the start of this process.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Says a line at the level `info`; where systemd's journal reads, as an entry with `fields`,
/// of which one is the line.
pub fn tell(line: &str, fields: impl FnOnce() -> Vec<(&'static str, String)>) {
    match JOURNAL.get() {
        Some(queue) if tracing::enabled!(tracing::Level::INFO) => queue.push(Line {
            text: format!("{line}\n"),
            entry: Some(journal::entry(&fields())),
        }),
        _ => tracing::info!("{line}"),
    }
}

/// Dropping it, also in a panic, writes what waits, if somebody reads.
#[derive(Debug)]
pub struct Log {
    queue: Arc<Queue>,
    written: bool,
}

impl Log {
    /// All that is traced, and panics, go to stderr; they wait until [`Self::write`].
    pub fn to_stderr() -> Self {
        let queue = Arc::new(Queue::default());
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(Writer(Arc::clone(&queue)))
            .with_ansi(stderr().is_terminal())
            .with_target(false)
            .log_internal_errors(false)
            .init();
        let panics = Arc::clone(&queue);
        panic::set_hook(Box::new(move |panic| panics.push(Line::of(&told(panic)))));
        if journal::reads(stderr()) {
            JOURNAL.get_or_init(|| Arc::clone(&queue));
        }
        Self {
            queue,
            written: false,
        }
    }

    /// A line without time and level.
    pub fn say(&self, line: &str) {
        self.queue.push(Line::of(&format!("{line}\n")));
    }

    /// Starts the thread, which has the privileges that its caller has now.
    ///
    /// # Errors
    /// Where the system has none to give.
    pub fn write(&mut self) -> io::Result<()> {
        self.write_to(stderr())
    }

    fn write_to(&mut self, to: impl AsFd + Send + 'static) -> io::Result<()> {
        let queue = Arc::clone(&self.queue);
        let write = move || queue.write(&to);
        thread::Builder::new().name("log".to_owned()).spawn(write)?;
        self.written = true;
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.written || self.write().is_ok() {
            self.queue.end();
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: VecDeque<Line>,
    bytes: usize,
    /// Since the last that found room. Until the others are written, no further one does,
    /// so that the loss is said where it was.
    lost: u64,
    /// No line is on its way to whoever reads.
    idle: bool,
    ended: bool,
}

#[derive(Debug)]
struct Line {
    text: String,
    /// The same with fields, for the journal.
    entry: Option<Vec<u8>>,
}

impl Line {
    fn of(text: &str) -> Self {
        let text = text.to_owned();
        Self { text, entry: None }
    }

    fn len(&self) -> usize {
        self.text.len() + self.entry.as_ref().map_or(0, Vec::len)
    }

    /// What the journal does not take as an entry, it takes as a line.
    fn write(&self, to: &impl AsFd) -> io::Result<()> {
        match &self.entry {
            Some(entry) if journal::send(entry).is_ok() => Ok(()),
            _ => Ok(write_whole(to, self.text.as_bytes())?),
        }
    }
}

impl Queue {
    fn push(&self, line: Line) {
        let mut lines = self.lines();
        let full = !lines.waiting.is_empty() && lines.bytes + line.len() > ROOM;
        if full || lines.lost > 0 {
            lines.lost += 1;
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.bytes += line.len();
        lines.waiting.push_back(line);
        drop(lines);
        self.changed.notify_all();
    }

    fn write(&self, to: &impl AsFd) {
        while let Some(line) = self.next() {
            if line.write(to).is_err() {
                LOST.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits for a line; none when all are written and the end has come.
    fn next(&self) -> Option<Line> {
        let mut lines = self.lines();
        loop {
            if let Some(line) = lines.waiting.pop_front() {
                lines.bytes -= line.len();
                lines.idle = false;
                return Some(line);
            }
            match mem::take(&mut lines.lost) {
                0 => {}
                1 => {
                    return Some(Line::of(
                        "a line of the log was lost: nobody read in time\n",
                    ));
                }
                lost => {
                    return Some(Line::of(&format!(
                        "{lost} lines of the log were lost: nobody read in time\n"
                    )));
                }
            }
            lines.idle = true;
            self.changed.notify_all();
            if lines.ended {
                return None;
            }
            lines = self
                .changed
                .wait(lines)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all is written; not for ever.
    fn end(&self) {
        let mut lines = self.lines();
        lines.ended = true;
        self.changed.notify_all();
        let busy = |lines: &mut Lines| !lines.idle || !lines.waiting.is_empty();
        let waited = self.changed.wait_timeout_while(lines, PATIENCE, busy);
        drop(waited);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gets each line whole.
struct Writer(Arc<Queue>);

impl io::Write for &Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(Line::of(&String::from_utf8_lossy(line)));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Whoever shares stderr may have made it non-blocking.
fn write_whole(to: &impl AsFd, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut there = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
                poll(&mut there, PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// As the standard library tells it, which would write it itself and wait.
fn told(panic: &PanicHookInfo<'_>) -> String {
    let current = thread::current();
    let name = current.name().unwrap_or("without a name");
    let trace = Backtrace::capture();
    match trace.status() {
        BacktraceStatus::Captured => format!("thread {name} {panic}\n{trace}\n"),
        _ => format!("thread {name} {panic}\n"),
    }
}

#[cfg(test)]
mod tests;
