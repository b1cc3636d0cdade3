//! What the kernel says of network interfaces: rtnetlink(7). The only module that
//! speaks it, besides what aya does to attach to a qdisc.
//!
//! A socket belongs to the network namespace of the thread that opens it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
        setsockopt, socket, sockopt::RcvBufForce,
    },
};

mod message;

use message::{Message, Messages};

/// A network interface as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub loopback: bool,
    /// `ARPHRD_`: what its frames begin with.
    pub hardware: u16,
    /// What made it: `vlan`, `bridge`, `veth`; a physical one has none.
    pub kind: Option<String>,
    /// The bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// The interface of this network namespace that it stands on or is a pair with.
    pub lower: Option<u32>,
    /// Where a program of XDP hangs there: by whom frames are handed to it.
    pub xdp: Option<XdpMode>,
}

/// Who hands frames to a program of XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// The driver.
    Native,
    /// The kernel, once it has made a socket buffer.
    Generic,
}

impl XdpMode {
    pub const fn words(self) -> &'static str {
        match self {
            Self::Native => "XDP in its driver",
            Self::Generic => "generic XDP",
        }
    }

    /// `XDP_ATTACHED_` (include/uapi/linux/if_link.h).
    const fn of(attached: u8) -> Option<Self> {
        match attached {
            0 => None,
            1 | 3 => Some(Self::Native),
            _ => Some(Self::Generic),
        }
    }
}

/// A filter of a clsact qdisc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub handle: u32,
    /// The name and the id of its BPF program.
    pub program: Option<(String, u32)>,
}

/// Which filters of a clsact qdisc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`, and egress.
impl Direction {
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// All interfaces, in the kernel's order.
///
/// # Errors
/// As all here: what the system calls say.
pub fn links() -> io::Result<Vec<Link>> {
    // Counters would be most of the answer.
    const SKIP_STATISTICS: u32 = 1 << 3;
    let mut body = vec![0; 16];
    message::attribute(&mut body, 29, &SKIP_STATISTICS.to_ne_bytes()); // IFLA_EXT_MASK
    dump(libc::RTM_GETLINK, &body, message::link)
}

/// The filters of an interface's clsact qdisc in the order in which they run;
/// none where there is no such qdisc.
pub fn filters(ifindex: u32, direction: Direction) -> io::Result<Vec<Filter>> {
    let mut body = vec![0; 20];
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    body[12..16].copy_from_slice(&direction.parent().to_ne_bytes());
    dump(libc::RTM_GETTFILTER, &body, message::filter)
}

/// Hears of what changes.
pub struct Listener(OwnedFd);

impl Listener {
    /// Of every interface that comes, goes or changes, and of filters.
    pub fn of_interfaces() -> io::Result<Self> {
        // RTMGRP_LINK and RTMGRP_TC (include/uapi/linux/rtnetlink.h).
        Self::open(0x1 | 0x8)
    }

    /// Of the addresses of interfaces.
    pub fn of_addresses() -> io::Result<Self> {
        // RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
        Self::open(0x10 | 0x100)
    }

    fn open(groups: u32) -> io::Result<Self> {
        let socket = open(groups)?;
        // A burst of new interfaces; where it overruns, `hear` says so.
        setsockopt(&socket, RcvBufForce, &(1 << 20))?;
        Ok(Self(socket))
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether there is nothing to [`hear`](Self::hear).
    pub fn is_silent(&self) -> io::Result<bool> {
        let mut descriptor = [PollFd::new(self.descriptor(), PollFlags::POLLIN)];
        Ok(poll(&mut descriptor, PollTimeout::ZERO)? == 0)
    }

    /// Takes all that was said, and whether there was anything. What was lost
    /// because nobody listened in time counts: who hears asks for everything anew.
    pub fn hear(&self) -> io::Result<bool> {
        let mut heard = false;
        let mut buffer = [0; 8192];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(nix::Error::ENOBUFS) => heard = true,
                Err(nix::Error::EAGAIN) => return Ok(heard),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Lists what `read` makes of the answer. Again where it changed meanwhile.
fn dump<T>(kind: u16, body: &[u8], read: impl Fn(&Message<'_>) -> Option<T>) -> io::Result<Vec<T>> {
    const TRIES: usize = 8;
    for _ in 0..TRIES {
        if let Some(list) = dump_once(kind, body, &read)? {
            return Ok(list);
        }
    }
    Err(io::Error::other("the list changes all the time"))
}

fn dump_once<T>(
    kind: u16,
    body: &[u8],
    read: impl Fn(&Message<'_>) -> Option<T>,
) -> io::Result<Option<Vec<T>>> {
    let socket = open(0)?;
    send(
        socket.as_raw_fd(),
        &message::request(kind, body),
        MsgFlags::empty(),
    )?;
    let mut list = Vec::new();
    let mut interrupted = false;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in Messages::of(&buffer[..length]) {
            interrupted |= message.was_interrupted();
            if let Some(outcome) = message.ends() {
                outcome?;
                return Ok((!interrupted).then_some(list));
            }
            list.extend(read(&message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(lo.loopback && lo.index == 1 && lo.hardware == 772, "{lo:?}");
    }

    #[test]
    fn an_interface_without_the_qdisc_has_no_filters() {
        assert_eq!(filters(1, Direction::Egress).unwrap(), []);
    }
}
