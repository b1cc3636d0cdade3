//! A process of its own, of whoever is to send.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

/// Has no capability.
const NOBODY: libc::uid_t = 65534;

/// Dropping it ends it.
pub(super) struct Process(Option<Pid>);

impl Process {
    /// `work` makes system calls only: it is a copy of one thread of many, and neither
    /// allocates nor takes locks. Its error is the process's exit code.
    pub(super) fn start(work: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        // SAFETY: the child makes system calls only, as is said above.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self(Some(child))),
            ForkResult::Child => {
                let code = match work() {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
                };
                // SAFETY: a system call. What the copy holds is not dropped.
                unsafe { libc::_exit(code) }
            }
        }
    }

    pub(super) fn id(&self) -> i32 {
        self.0.map_or(0, Pid::as_raw)
    }

    /// Waits for it, and says what it said.
    pub(super) fn end(mut self) -> io::Result<()> {
        let Some(process) = self.0.take() else {
            return Ok(());
        };
        match waitpid(process, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, code) => Err(io::Error::from_raw_os_error(code)),
            other => Err(io::Error::other(format!("the process ended: {other:?}"))),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(process) = self.0 {
            // It may have ended.
            kill(process, Signal::SIGKILL)
                .and_then(|()| waitpid(process, None))
                .ok();
        }
    }
}

/// Gives up everything for good. To be called in a process of its own.
pub(super) fn become_nobody() -> io::Result<()> {
    // Those of the C library would look for the other threads.
    let calls = [
        [libc::SYS_setgroups, 0, 0, 0],
        [
            libc::SYS_setresgid,
            NOBODY.into(),
            NOBODY.into(),
            NOBODY.into(),
        ],
        [
            libc::SYS_setresuid,
            NOBODY.into(),
            NOBODY.into(),
            NOBODY.into(),
        ],
    ];
    for [call, first, second, third] in calls {
        // SAFETY: numbers; of no groups, no address either.
        Errno::result(unsafe { libc::syscall(call, first, second, third) })?;
    }
    // Changed credentials have forgotten it.
    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

/// Closes what another process has of a pipe.
pub(super) fn close(ends: [&OwnedFd; 2]) {
    for end in ends {
        // SAFETY: in a copy that drops nothing, and uses them no more.
        unsafe { libc::close(end.as_raw_fd()) };
    }
}

/// As `ip link set up` does.
pub(super) fn set_up(interface: &str) -> io::Result<()> {
    // SAFETY: zero is a value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    name(&mut request, interface);
    // SAFETY: numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let socket = Errno::result(socket)?;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the request lives on. The socket ends with the process.
    Errno::result(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}

/// Of the interface that is meant.
pub(super) fn name(request: &mut libc::ifreq, interface: &str) {
    // One is left for the zero at the end.
    for (place, byte) in request.ifr_name[..15].iter_mut().zip(interface.bytes()) {
        *place = byte.cast_signed();
    }
}
