//! Small datagrams to all destinations in turn, by one socket: how many in a second. The far
//! end's socket is full, so that they end there as soon as they have arrived.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    ptr,
    time::Duration,
};

use super::{Count, Ends, on, panicked};
use crate::prefixes::PORT;

/// As many go by one system call.
const AT_ONCE: usize = 64;

/// What there is in each.
const DATA: [u8; 18] = [b'x'; 18];

/// How many were sent in a second, and which part of them arrived.
pub struct Sent {
    pub rate: f64,
    pub arrived: f64,
}

/// `processors`: those on which there is a sender.
pub fn datagrams(ends: &Ends<'_>, processors: &[usize], time: Duration) -> io::Result<Sent> {
    let listen = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT));
    let socket = ends.far.run(listen).map_err(io::Error::other)??;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &0)?;
    let before = received(ends)?;
    let send = || {
        let mut senders = Vec::new();
        for _ in processors {
            senders.push(Sender::new(ends.destinations)?);
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = senders
                .into_iter()
                .zip(processors)
                .map(|(sender, processor)| {
                    scope.spawn(move || on(*processor).and_then(|()| sender.send(time)))
                })
                .collect();
            let mut total = (0.0, 0);
            for thread in threads {
                let sent = thread.join().unwrap_or_else(|_| panicked("a sender"));
                let (rate, all) = sent?;
                total = (total.0 + rate, total.1 + all);
            }
            io::Result::Ok(total)
        })
    };
    let (rate, all) = ends.near.run(send).map_err(io::Error::other)??;
    let arrived = (received(ends)? - before) as f64 / all as f64;
    Ok(Sent { rate, arrived })
}

/// The packets that the far end's interface has received.
fn received(ends: &Ends<'_>) -> io::Result<u64> {
    let read = || fs::read_to_string("/proc/thread-self/net/dev");
    let text = ends.far.run(read).map_err(io::Error::other)??;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    count.ok_or_else(|| io::Error::other("the far end's interface has no counters"))
}

struct Sender {
    socket: UdpSocket,
    addresses: Vec<libc::sockaddr_in>,
}

impl Sender {
    fn new(destinations: &[Ipv4Addr]) -> io::Result<Self> {
        let address = |address: &Ipv4Addr| {
            let address = SocketAddrV4::new(*address, PORT);
            *nix::sys::socket::SockaddrIn::from(address).as_ref()
        };
        Ok(Self {
            socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            addresses: destinations.iter().map(address).collect(),
        })
    }

    /// Returns the rate and how many there were at all.
    fn send(mut self, time: Duration) -> io::Result<(f64, u64)> {
        let mut data = libc::iovec {
            iov_base: DATA.as_ptr().cast_mut().cast(),
            iov_len: DATA.len(),
        };
        let mut messages: Vec<libc::mmsghdr> = self
            .addresses
            .iter_mut()
            .map(|address| {
                // SAFETY: a structure of numbers and pointers, which may all be zero.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_name = ptr::from_mut(address).cast();
                message.msg_hdr.msg_namelen = u32::try_from(size_of_val(address)).unwrap_or(0);
                message.msg_hdr.msg_iov = &raw mut data;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let (mut count, mut done) = (Count::of(time), 0);
        loop {
            for chunk in messages.chunks_mut(AT_ONCE) {
                let length = u32::try_from(chunk.len()).unwrap_or(0);
                // SAFETY: so many messages, whose pointers are to what outlives the call.
                let sent = unsafe {
                    libc::sendmmsg(self.socket.as_raw_fd(), chunk.as_mut_ptr(), length, 0)
                };
                if sent < 0 {
                    return Err(io::Error::last_os_error());
                }
                done += u64::from(sent.unsigned_abs());
                if let Some(rate) = count.rate(done) {
                    return Ok((rate, done));
                }
            }
        }
    }
}
