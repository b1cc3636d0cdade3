//! What sends frames past the stack: the ways by which root leaves a machine unseen.
//!
//! Each module opens a sender on an interface of the network namespace that the calling
//! thread is in, and sends whole Ethernet frames with it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
};

use nix::{errno::Errno, net::if_::if_nametoindex};

pub mod bpf;
pub mod bypass;
pub mod xsk;

fn index(interface: &str) -> io::Result<u32> {
    Ok(if_nametoindex(interface)?)
}

fn socket(family: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a system call without pointers.
    let socket = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    let socket = Errno::result(socket)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// `T`: what the option is made of.
fn set<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is as long as is said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(value).cast(),
            length::<T>(),
        )
    };
    Errno::result(set)?;
    Ok(())
}

fn length<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// Takes an address of a family that the standard library does not know.
fn bind<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    // SAFETY: the address is as long as is said.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            ptr::from_ref(address).cast(),
            length::<T>(),
        )
    };
    Errno::result(bound)?;
    Ok(())
}

/// Tells the kernel to take what is in the ring.
fn kick(socket: &OwnedFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: nothing is pointed to.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), ptr::null(), 0, flags, ptr::null(), 0) };
    Errno::result(sent)?;
    Ok(())
}

/// Memory that is shared with the kernel.
struct Shared {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it belongs to whoever has it, and no other thread knows of it.
unsafe impl Send for Shared {}

impl Shared {
    /// Of a socket's ring, or of nobody yet.
    fn map(socket: Option<&OwnedFd>, length: usize, offset: libc::off_t) -> io::Result<Self> {
        let (flags, descriptor) = match socket {
            Some(socket) => (libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, access, flags, descriptor, offset) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.length, "inside");
        // SAFETY: inside, and nobody else writes there now.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len())
        };
    }

    /// A word that the kernel looks at, too.
    fn word<T>(&self, at: usize) -> *mut T {
        assert!(
            at + size_of::<T>() <= self.length && at.is_multiple_of(align_of::<T>()),
            "inside"
        );
        // SAFETY: inside.
        unsafe { self.start.as_ptr().add(at).cast() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by us, once. It fails only where that is not so.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
