//! setsockopt by io_uring (Linux 6.7), which is another way into the kernel.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// Asks for PACKET_QDISC_BYPASS, of this network namespace. `None` where the kernel has no
/// such way.
pub fn ask_for_bypass() -> Option<io::Result<()>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
    let on = 1i32;
    match command(socket.as_raw_fd(), &on) {
        Ok(0) => Some(Ok(())),
        Ok(failed) => match Errno::from_raw(-failed) {
            Errno::EOPNOTSUPP | Errno::EINVAL => None,
            errno => Some(Err(errno.into())),
        },
        Err(Errno::ENOSYS | Errno::EPERM) => None,
        Err(errno) => panic!("{errno}"),
    }
}

/// What the completion says. Offsets are those of linux/io_uring.h.
fn command(socket: RawFd, value: &i32) -> Result<i32, Errno> {
    const OP_URING_CMD: u8 = 46;
    const SOCKET_OP_SETSOCKOPT: u32 = 3;
    const OFFSET_ENTRIES: libc::off_t = 0x1000_0000;
    const GET_EVENTS: u32 = 1;
    let mut parameters = [0u32; 30];
    // SAFETY: the parameters are 120 bytes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let ring = RawFd::try_from(Errno::result(ring)?).unwrap();
    // SAFETY: the kernel has just given it to us.
    let ring = unsafe { OwnedFd::from_raw_fd(ring) };
    let (queue, completions) = (&parameters[10..20], &parameters[20..30]);
    let map = |length, offset| {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (flags, ring) = (libc::MAP_SHARED | libc::MAP_POPULATE, ring.as_raw_fd());
        // SAFETY: a new mapping, which the test leaves to the end of its process.
        let at = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, ring, offset) };
        assert_ne!(at, libc::MAP_FAILED, "{}", Errno::last());
        at.cast::<u8>()
    };
    // One page is as much as the smallest rings have, of queue and completions both.
    let rings = map(4096, 0);
    let entry = map(4096, OFFSET_ENTRIES);
    // SAFETY: within the mappings; the kernel looks at them in the system call only.
    unsafe {
        entry.write(OP_URING_CMD);
        entry.add(4).cast::<i32>().write(socket);
        entry.add(8).cast::<u32>().write(SOCKET_OP_SETSOCKOPT);
        entry.add(16).cast::<i32>().write(libc::SOL_PACKET);
        entry.add(20).cast::<i32>().write(libc::PACKET_QDISC_BYPASS);
        entry.add(44).cast::<u32>().write(4);
        entry
            .add(48)
            .cast::<u64>()
            .write(ptr::from_ref(value) as u64);
        rings.add(queue[6] as usize).cast::<u32>().write(0);
        rings.add(queue[1] as usize).cast::<u32>().write(1);
        let nothing = ptr::null::<u8>();
        Errno::result(libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            1,
            1,
            GET_EVENTS,
            nothing,
            0,
        ))?;
        Ok(rings.add(completions[5] as usize + 8).cast::<i32>().read())
    }
}
