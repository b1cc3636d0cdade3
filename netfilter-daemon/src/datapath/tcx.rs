//! Links of tc's multi-program interface (Linux 6.6), by the number of the interface:
//! its name may change while we attach.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use super::{pins::Role, test_run::bpf};

// Commands of bpf(2).
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
pub(super) const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
pub(super) const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// `BPF_F_BEFORE`; before nothing in particular is before all.
const BEFORE: u32 = 1 << 3;

/// What the kernel says of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) id: u32,
    /// Zero where it is detached, or its interface is gone.
    pub(super) ifindex: u32,
}

/// Attaches a program before all others.
pub(super) fn attach_first(
    program: BorrowedFd<'_>,
    ifindex: u32,
    role: Role,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        relative: u32,
        padding: u32,
        revision: u64,
    }
    let mut attributes = Attributes {
        program: number(program.as_raw_fd()),
        ifindex,
        attach_type: attach_type(role),
        flags: BEFORE,
        relative: 0,
        padding: 0,
        revision: 0,
    };
    descriptor(bpf(LINK_CREATE, &mut attributes)?)
}

/// Replaces the program of a link, atomically.
pub(super) fn update(link: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [number(link.as_raw_fd()), number(program.as_raw_fd()), 0, 0];
    bpf(LINK_UPDATE, &mut attributes).map(|_| ())
}

pub(super) fn detach(link: &OwnedFd) -> io::Result<()> {
    bpf(LINK_DETACH, &mut number(link.as_raw_fd())).map(|_| ())
}

#[repr(C)]
struct Pinning {
    path: u64,
    descriptor: u32,
    flags: u32,
}

pub(super) fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Pinning {
        path: path.as_ptr() as u64,
        descriptor: number(link.as_raw_fd()),
        flags: 0,
    };
    bpf(OBJ_PIN, &mut attributes).map(|_| ())
}

pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Pinning {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    descriptor(bpf(OBJ_GET, &mut attributes)?)
}

pub(super) fn standing(link: &OwnedFd) -> io::Result<Standing> {
    /// The beginning of `struct bpf_link_info`, of a tcx link.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        ifindex: u32,
        attach_type: u32,
    }
    #[repr(C)]
    struct Attributes {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut attributes = Attributes {
        descriptor: number(link.as_raw_fd()),
        length: u32::try_from(size_of::<Info>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(Standing {
        id: info.id,
        ifindex: info.ifindex,
    })
}

/// The link of the program that runs first; zero where it has none.
pub(super) fn first(ifindex: u32, role: Role) -> io::Result<Option<u32>> {
    #[repr(C)]
    struct Attributes {
        ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    /// More than the kernel attaches (BPF_MPROG_MAX).
    const ROOM: usize = 64;
    let (mut programs, mut links) = ([0u32; ROOM], [0u32; ROOM]);
    let mut attributes = Attributes {
        ifindex,
        attach_type: attach_type(role),
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: u32::try_from(ROOM).unwrap_or(0),
        padding: 0,
        program_flags: 0,
        links: links.as_mut_ptr() as u64,
        link_flags: 0,
        revision: 0,
    };
    match bpf(PROG_QUERY, &mut attributes) {
        Ok(_) => Ok((attributes.count > 0).then_some(links[0])),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

const fn attach_type(role: Role) -> u32 {
    const BPF_TCX_INGRESS: u32 = 46;
    const BPF_TCX_EGRESS: u32 = 47;
    match role {
        Role::Egress | Role::Delivery => BPF_TCX_EGRESS,
        Role::Ingress | Role::Loopback | Role::Judged | Role::Workload => BPF_TCX_INGRESS,
    }
}

pub(super) fn number(descriptor: RawFd) -> u32 {
    u32::try_from(descriptor).unwrap_or(u32::MAX)
}

pub(super) fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = RawFd::try_from(returned).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
