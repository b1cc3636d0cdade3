//! Programs of others, hung beside the filter's or in their place (bpf(2)).

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::libc;

// Commands of bpf(2).
const PROG_LOAD: libc::c_int = 5;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
const LINK_GET_FD_BY_ID: libc::c_int = 30;
const LINK_DETACH: libc::c_int = 34;

/// `BPF_F_BEFORE`; before nothing in particular is before all.
const BEFORE: u32 = 1 << 3;
/// `XDP_FLAGS_SKB_MODE`, which every driver has.
const SKB_MODE: u32 = 1 << 1;

/// Where a program hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// tcx, Linux 6.6.
    Ingress,
    /// Before all others.
    Egress,
    Xdp,
}

impl Place {
    /// `enum bpf_prog_type`
    const fn program_type(self) -> u64 {
        match self {
            Self::Ingress | Self::Egress => 3,
            Self::Xdp => 6,
        }
    }

    /// `enum bpf_attach_type`
    const fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
            Self::Xdp => 37,
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Ingress => 0,
            Self::Egress => BEFORE,
            Self::Xdp => SKB_MODE,
        }
    }
}

/// Instructions (`struct bpf_insn`) that set a register to a number.
pub const fn set(register: u8, number: u32) -> u64 {
    0xb7 | (register as u64) << 8 | (number as u64) << 32
}

/// Helpers get what is in the registers from 1 on; 1 is the packet at first.
pub const fn call(helper: u32) -> u64 {
    0x85 | (helper as u64) << 32
}

pub const EXIT: u64 = 0x95;

/// Hangs a program on an interface of the calling thread's namespace. Dropping what is
/// returned takes it away.
///
/// # Errors
/// Where the kernel refuses; EINVAL where it has no such place.
pub fn attach(place: Place, ifindex: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut attributes = [0u64; 16];
    attributes[0] = place.program_type() | (instructions.len() as u64) << 32;
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = license.as_ptr() as u64;
    let program = descriptor(bpf(PROG_LOAD, &mut attributes)?)?;
    let number = program.as_raw_fd().cast_unsigned();
    let mut attributes = [0u32; 16];
    attributes[..4].copy_from_slice(&[number, ifindex, place.attach_type(), place.flags()]);
    descriptor(bpf(LINK_CREATE, &mut attributes)?)
}

/// The links at a place, by their ids, in the order in which they run.
///
/// # Errors
/// EINVAL where the kernel has no such place.
pub fn links(place: Place, ifindex: u32) -> io::Result<Vec<u32>> {
    /// More than the kernel attaches.
    const ROOM: usize = 64;
    let (mut programs, mut links) = ([0u32; ROOM], [0u32; ROOM]);
    let mut attributes = [0u64; 8];
    attributes[0] = u64::from(ifindex) | u64::from(place.attach_type()) << 32;
    attributes[2] = programs.as_mut_ptr() as u64;
    attributes[3] = ROOM as u64;
    attributes[5] = links.as_mut_ptr() as u64;
    match bpf(PROG_QUERY, &mut attributes) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let count = usize::try_from(attributes[3] & u64::from(u32::MAX)).unwrap_or(0);
    Ok(links.into_iter().take(count).filter(|id| *id > 0).collect())
}

/// As `bpftool link detach` does.
///
/// # Errors
/// Where the kernel refuses.
pub fn detach(link: u32) -> io::Result<()> {
    let link = descriptor(bpf(LINK_GET_FD_BY_ID, &mut [link, 0, 0, 0])?)?;
    bpf(LINK_DETACH, &mut [link.as_raw_fd().cast_unsigned()])?;
    Ok(())
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    let at = std::ptr::from_mut(attributes);
    // SAFETY: the attributes are those of the command, and what they point to lives on.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, at, size_of::<T>()) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned)
}

fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = libc::c_int::try_from(returned).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
