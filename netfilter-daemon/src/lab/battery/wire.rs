//! Puts frames on an interface as they are.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{libc, net::if_::if_nametoindex};

/// A packet socket on one interface.
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// As [`open`](Self::open), by the interface's name.
    pub fn of(interface: &str) -> io::Result<Self> {
        Self::open(if_nametoindex(interface)?)
    }

    /// In the namespace of the calling thread.
    pub fn open(index: u32) -> io::Result<Self> {
        // SAFETY: a system call without pointers. Protocol 0: nothing is received.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: zero is a value of every field.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
        let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
        // SAFETY: the address and its length.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket })
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the bytes and their length.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}
