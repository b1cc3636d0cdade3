//! What ends a command that shows what happens until it is told to stop.

use std::{io, os::fd::AsFd, thread};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::SignalFd,
    },
};

/// Calls `end`, on a thread of its own, on SIGINT, SIGTERM and SIGHUP, and when nobody
/// reads standard output any more: its pipe is closed, or its terminal has gone.
///
/// To be called while this thread is the only one, so that all block the signals.
pub(super) fn when_interrupted(end: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block()?;
    let signals = SignalFd::new(&signals)?;
    thread::spawn(move || {
        let stdout = io::stdout();
        let mut ends = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            // Its end is told unasked.
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        while poll(&mut ends, PollTimeout::NONE) == Err(Errno::EINTR) {}
        end();
    });
    Ok(())
}
