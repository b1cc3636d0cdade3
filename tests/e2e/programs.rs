//! The smallest programs: what it costs that there is one at all.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// Where a program is attached. The numbers are those of include/uapi/linux/bpf.h.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// tc egress, by tcx.
    Egress,
    /// XDP of the kernel rather than of the driver, as the daemon has it on veth.
    Workload,
}

/// What a program says of every packet.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    Pass,
    Drop,
}

impl Place {
    const fn program_type(self) -> u32 {
        match self {
            Self::Egress => 3,
            Self::Workload => 6,
        }
    }

    const fn attach_type(self) -> u32 {
        match self {
            Self::Egress => 47,
            Self::Workload => 37,
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Egress => 0,
            // XDP_FLAGS_SKB_MODE
            Self::Workload => 2,
        }
    }

    const fn action(self, says: Says) -> i32 {
        match (self, says) {
            // TCX_NEXT, TCX_DROP
            (Self::Egress, Says::Pass) => -1,
            (Self::Egress, Says::Drop) => 2,
            // XDP_PASS, XDP_DROP
            (Self::Workload, Says::Pass) => 2,
            (Self::Workload, Says::Drop) => 1,
        }
    }
}

/// Puts `r0 = action; exit` on an interface of the calling thread's network namespace. It is
/// gone when the link is closed.
pub fn attach(place: Place, says: Says, interface: &str) -> io::Result<OwnedFd> {
    let name = CString::new(interface)?;
    // SAFETY: a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let program = load(place, says)?;
    let mut link = [0u32; 32];
    link[0] = program.as_raw_fd().cast_unsigned();
    link[1] = index;
    link[2] = place.attach_type();
    link[3] = place.flags();
    bpf(BPF_LINK_CREATE, &link)
}

fn load(place: Place, says: Says) -> io::Result<OwnedFd> {
    let action = u64::from(place.action(says).cast_unsigned());
    let instructions: [u64; 2] = [action << 32 | 0xb7, 0x95];
    let license = c"GPL";
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        program: u64,
        license: u64,
        rest: [u64; 13],
    }
    bpf(
        BPF_PROG_LOAD,
        &Load {
            kind: place.program_type(),
            instructions: 2,
            program: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            rest: [0; 13],
        },
    )
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;

/// A command that gives a new descriptor. `T` is the beginning of `union bpf_attr`.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are those of the command, as long as they say, and what they point
    // to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
