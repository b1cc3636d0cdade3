//! What the daemon may do beyond what any process may: what it needs, and nothing else.
//!
//! Capabilities belong to threads. They are given up before there is a second one, so that
//! all have the same.

use std::{fmt, io, ptr};

use nix::{
    errno::Errno,
    sys::prctl::{set_dumpable, set_no_new_privs},
};

/// linux/capability.h
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    DacReadSearch = 2,
    NetAdmin = 12,
    SysPtrace = 19,
    Perfmon = 38,
    Bpf = 39,
}

/// What a reload needs, which may come with larger tables and new programs:
///
/// - `NetAdmin`: to load tc programs and to attach them;
/// - `Perfmon`: programs that read packets by pointer, verified without the detours that
///   unprivileged ones take, with which they are refused;
/// - `Bpf`: maps, programs, what is pinned.
///
/// A start uses more if it is there: [`LOOKING`], `CAP_SETPCAP` to empty the bounding set,
/// `CAP_SYS_ADMIN` to mount a BPF file system where systemd has not.
pub const KEPT: [Capability; 3] = [Capability::NetAdmin, Capability::Perfmon, Capability::Bpf];

/// What it takes to look into other processes, and those of other users: to name whose
/// connections a start cuts, and to find sockets that pass by the filter.
pub const LOOKING: [Capability; 2] = [Capability::SysPtrace, Capability::DacReadSearch];

#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {source}")]
pub(super) struct Error {
    operation: &'static str,
    source: io::Error,
}

/// What this process keeps, for the log.
#[derive(Debug, PartialEq)]
pub(super) struct Kept(Vec<Capability>);

/// Gives up all capabilities but [`KEPT`], for good. `CAP_DAC_READ_SEARCH` stays if what a
/// reload `reads` cannot be read without: a policy in the home of a user, who trusts root
/// and not everybody.
///
/// To be called while there is one thread.
pub(super) fn shed(reads: impl FnOnce() -> bool) -> Result<Kept, Error> {
    let had = Sets::of_this_thread()?;
    let mut kept: Vec<Capability> = KEPT.to_vec();
    Sets {
        effective: mask(&kept) & had.permitted,
        ..had
    }
    .take()?;
    if !reads() {
        kept.push(Capability::DacReadSearch);
    }
    kept.retain(|capability| had.permitted & mask(&[*capability]) != 0);
    had.take()?;
    bound(&kept)?;
    let permitted = mask(&kept);
    Sets {
        effective: permitted,
        permitted,
        inheritable: 0,
    }
    .take()?;
    set_no_new_privs().map_err(failed("give up new privileges"))?;
    // No core on a disk, and no debugger but root's own: learned names are in the memory.
    set_dumpable(false).map_err(failed("forbid core dumps"))?;
    Ok(Kept(kept))
}

/// Gives up all that it does not take to look into other processes, of this thread alone.
pub(super) fn keep_looking() -> Result<(), Error> {
    let had = Sets::of_this_thread()?;
    let kept = mask(&LOOKING) & had.permitted;
    Sets {
        effective: kept,
        permitted: kept,
        inheritable: 0,
    }
    .take()
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no capability");
        }
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(", "))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        })
    }
}

pub(super) fn mask(capabilities: &[Capability]) -> u64 {
    capabilities
        .iter()
        .fold(0, |mask, capability| mask | 1 << *capability as u32)
}

/// Limits what this process and its children can ever have. Without `CAP_SETPCAP` that is
/// what its parent said; as it cannot gain any by no_new_privs, nothing depends on it.
fn bound(kept: &[Capability]) -> Result<(), Error> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64)
        .map_err(failed("clear the ambient capabilities"))?;
    // Those that the kernel does not know are EINVAL.
    for capability in (0..64).take_while(|number| prctl(libc::PR_CAPBSET_READ, *number).is_ok()) {
        if mask(kept) & 1 << capability != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            Err(Errno::EPERM) => break,
            Err(errno) => return Err(failed("limit the bounding set")(errno)),
        }
    }
    Ok(())
}

fn prctl(option: libc::c_int, argument: u64) -> Result<(), Errno> {
    // SAFETY: these options take numbers.
    Errno::result(unsafe { libc::prctl(option, argument, 0, 0, 0) }).map(drop)
}

/// One bit for each capability.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// capset(2): `_LINUX_CAPABILITY_VERSION_3`, and of the calling thread.
const HEADER: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// The lower halves of the sets, then the upper ones.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Sets {
    fn of_this_thread() -> Result<Self, Error> {
        let mut header = HEADER;
        let mut halves = [Half::default(); 2];
        // SAFETY: version 3 reads a header and writes two halves.
        let done = unsafe {
            libc::syscall(
                libc::SYS_capget,
                ptr::from_mut(&mut header),
                halves.as_mut_ptr(),
            )
        };
        Errno::result(done).map_err(failed("read the capabilities"))?;
        let whole =
            |of: fn(&Half) -> u32| u64::from(of(&halves[1])) << 32 | u64::from(of(&halves[0]));
        Ok(Self {
            effective: whole(|half| half.effective),
            permitted: whole(|half| half.permitted),
            inheritable: whole(|half| half.inheritable),
        })
    }

    fn take(self) -> Result<(), Error> {
        let mut header = HEADER;
        let half = |shift: u32| Half {
            effective: half(self.effective, shift),
            permitted: half(self.permitted, shift),
            inheritable: half(self.inheritable, shift),
        };
        let halves = [half(0), half(32)];
        // SAFETY: version 3 reads a header and two halves.
        let done = unsafe {
            libc::syscall(
                libc::SYS_capset,
                ptr::from_mut(&mut header),
                halves.as_ptr(),
            )
        };
        Errno::result(done)
            .map(drop)
            .map_err(failed("give up capabilities"))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the half that is asked for"
)]
const fn half(set: u64, shift: u32) -> u32 {
    (set >> shift) as u32
}

fn failed(operation: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error {
        operation,
        source: errno.into(),
    }
}
