//! Another tool that wants our place: a tcx program that lets everything pass.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use netfilter_daemon::lab::namespace::Namespace;

/// Attached before all others until it is dropped.
pub struct Rival(#[expect(dead_code, reason = "held")] OwnedFd);

impl Rival {
    /// Lets everything pass at once: whoever comes after it is not asked.
    pub fn before_egress(namespace: &Namespace, interface: &str) -> Self {
        const TCX_PASS: i32 = 0;
        Self::attach(namespace, interface, TCX_PASS)
    }

    /// Lets those after it decide.
    pub fn passing_on(namespace: &Namespace, interface: &str) -> Self {
        const TCX_NEXT: i32 = -1;
        Self::attach(namespace, interface, TCX_NEXT)
    }

    fn attach(namespace: &Namespace, interface: &str, action: i32) -> Self {
        let attach = || -> io::Result<OwnedFd> {
            let program = load(action)?;
            let ifindex = nix::net::if_::if_nametoindex(interface)?;
            // LINK_CREATE: program, interface, BPF_TCX_EGRESS, BPF_F_BEFORE.
            let program = program.as_raw_fd().cast_unsigned();
            bpf(28, &mut [program, ifindex, 47, 8, 0, 0, 0, 0])
        };
        Self(namespace.run(attach).unwrap().unwrap())
    }
}

/// `r0 = action; exit`
fn load(action: i32) -> io::Result<OwnedFd> {
    let instructions = [0xb7 | u64::from(action.cast_unsigned()) << 32, 0x95];
    let license = c"GPL";
    let mut attributes = [0u64; 16];
    attributes[0] = 3 | 2 << 32; // BPF_PROG_TYPE_SCHED_CLS, two instructions
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = license.as_ptr() as u64;
    bpf(5, &mut attributes)
}

/// Detaches the link with a pin, as `bpftool link detach` does.
pub fn detach(pin: &std::path::Path) -> io::Result<()> {
    let path = std::ffi::CString::new(pin.to_str().unwrap())?;
    let link = bpf(7, &mut [path.as_ptr() as u64, 0])?;
    match bpf(34, &mut [link.as_raw_fd().cast_unsigned()]) {
        // It returns no descriptor but zero.
        Ok(zero) => {
            std::mem::forget(zero);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let at = std::ptr::from_mut(attributes);
    // SAFETY: the attributes are those of the command, and their pointers are valid.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, at, size_of::<T>()) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just given, or the zero of `detach`.
    Ok(unsafe { OwnedFd::from_raw_fd(returned as i32) })
}
