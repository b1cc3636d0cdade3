//! The daemon under test, as a child in a namespace.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long the daemon may take until it enforces: the verifier of an emulated machine
/// has taken more than a minute.
const START: Duration = Duration::from_secs(180);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(5);

/// How much of what it wrote is shown, in lines and in characters of each.
const SHOWN: usize = 40;
const WIDTH: usize = 200;

/// How its line begins that says so, of a policy that denies and of one that only reports.
const READY: [&str; 2] = ["enforcing on", "auditing on"];

/// A daemon that enforces. Dropping it ends it.
pub struct Daemon {
    child: Child,
    /// The line by which it said that it enforces.
    pub said: String,
}

impl Daemon {
    /// Starts `command` and waits until it says that it enforces.
    pub fn start(mut command: Command) -> Result<Self, Error> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // What supervises the lab has nothing to learn from the daemon inside.
        command.env_remove("NOTIFY_SOCKET");
        let child = command.spawn().map_err(|source| Error::Spawn { source })?;
        let mut daemon = Self {
            child,
            said: String::new(),
        };
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = daemon.child.stdout.take() {
            follow(stdout, sender.clone());
        }
        if let Some(stderr) = daemon.child.stderr.take() {
            follow(stderr, sender);
        }
        daemon.said = daemon.wait_until_ready(&lines)?;
        Ok(daemon)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        // It can only have ended meanwhile.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }

    fn wait_until_ready(&mut self, lines: &Receiver<String>) -> Result<String, Error> {
        let deadline = Instant::now() + START;
        let mut log = Log::default();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if READY.iter().any(|ready| line.starts_with(ready)) => return Ok(line),
                Ok(line) => log.push(&line),
                Err(RecvTimeoutError::Timeout) => return Err(Error::Silent { log }),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self
                        .child
                        .wait()
                        .map_err(|source| Error::Spawn { source })?;
                    return Err(Error::Ended { status, log });
                }
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let deadline = Instant::now() + STOP;
        if !self.has_ended() && kill(pid, Signal::SIGTERM).is_ok() {
            while !self.has_ended() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
        if !self.has_ended() {
            self.kill();
        }
    }
}

/// Why there is no daemon to test.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start the daemon: {source}")]
    Spawn { source: io::Error },
    #[error("the daemon ended with {status} before it enforced anything{log}")]
    Ended { status: ExitStatus, log: Log },
    #[error("the daemon has not said `{} …` in {} s{log}", READY[0], START.as_secs())]
    Silent { log: Log },
}

/// The last lines that a daemon wrote, to stdout and stderr.
#[derive(Debug, Default)]
pub struct Log {
    lines: VecDeque<String>,
    forgotten: usize,
}

impl Log {
    /// A verifier that refuses a program writes megabytes.
    fn push(&mut self, line: &str) {
        if self.lines.len() == SHOWN {
            self.lines.pop_front();
            self.forgotten += 1;
        }
        self.lines.push_back(line.chars().take(WIDTH).collect());
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.lines.len(), self.forgotten) {
            (0, _) => return f.write_str("; it wrote nothing"),
            (_, 0) => f.write_str("; it wrote:")?,
            (shown, _) => write!(f, "; the last {shown} lines that it wrote:")?,
        }
        self.lines
            .iter()
            .try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Reads to the end, or the daemon would block on a full pipe.
fn follow(output: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody listens any more once the daemon enforces.
            lines.send(line).ok();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_so_is_waited_for() {
        let daemon = Daemon::start(shell("echo loading; echo enforcing on eth0 >&2; sleep 60"));
        assert_eq!(daemon.unwrap().said, "enforcing on eth0");
    }

    #[test]
    fn a_daemon_that_fails_is_quoted() {
        let error = Daemon::start(shell("echo no bpffs >&2; exit 3"))
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "the daemon ended with exit status: 3 before it enforced anything; it wrote:\n    no bpffs"
        );
    }

    #[test]
    fn of_a_flood_of_lines_the_last_are_quoted() {
        let error = Daemon::start(shell("seq 1000; exit 1")).err().unwrap();
        let told = error.to_string();
        assert!(
            told.contains("; the last 40 lines that it wrote:\n    961\n"),
            "{told}"
        );
        assert!(told.ends_with("\n    1000"), "{told}");
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }
}
