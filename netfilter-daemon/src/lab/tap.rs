//! What arrives at the internet's end of the cable, answered or not: a packet
//! that got out has carried something out.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};

use super::namespace::Namespace;

/// Room for tens of thousands of packets between two looks.
const BUFFER: usize = 64 << 20;

const UDP: u8 = 17;
const PORTED: [u8; 2] = [6, UDP];
const DNS: u16 = 53;

/// An eye on every interface of a namespace.
pub struct Tap {
    socket: OwnedFd,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Destination, protocol number, and destination port where there is one.
    packets: HashSet<(IpAddr, u8, Option<u16>)>,
    /// Names in DNS questions over UDP, in wire form, in the case they came in.
    questions: HashSet<Vec<u8>>,
}

impl Tap {
    pub fn open(namespace: &Namespace) -> io::Result<Self> {
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                flags,
                SockProtocol::EthAll,
            )
        };
        let socket = namespace.run(open).map_err(io::Error::other)??;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        Ok(Self { socket })
    }

    /// What was seen since the last look.
    pub fn look(&self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut frame = [0; 2048];
        loop {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => seen.note(&frame[..length]),
                Err(Errno::EAGAIN) => return Ok(seen),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Seen {
    pub fn packet(&self, to: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        self.packets.contains(&(to, protocol, port))
    }

    /// `name` as text, in lower case, as programs ask for it.
    pub fn question(&self, name: &str) -> bool {
        let asked = |wire: &Vec<u8>| {
            labels(wire).is_some_and(|labels| labels.eq(name.split('.').map(str::as_bytes)))
        };
        self.questions.iter().any(asked)
    }

    fn note(&mut self, frame: &[u8]) {
        // What is cut short is nothing that a probe sends.
        let Some((to, protocol, payload)) = network(frame) else {
            return;
        };
        let port = match payload.get(2..4) {
            Some(&[high, low]) if PORTED.contains(&protocol) => {
                Some(u16::from_be_bytes([high, low]))
            }
            _ => None,
        };
        self.packets.insert((to, protocol, port));
        if (protocol, port) == (UDP, Some(DNS)) {
            // Behind the headers of UDP and DNS.
            self.questions.extend(payload.get(20..).map(<[u8]>::to_vec));
        }
    }
}

/// Destination, protocol, and what follows the header of IPv4, or of IPv6
/// without extensions, in an Ethernet frame.
fn network(frame: &[u8]) -> Option<(IpAddr, u8, &[u8])> {
    let packet = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            let length = usize::from(packet.first()? & 15) * 4;
            Some((
                Ipv4Addr::from(to).into(),
                *packet.get(9)?,
                packet.get(length..)?,
            ))
        }
        [0x86, 0xdd] => {
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some((
                Ipv6Addr::from(to).into(),
                *packet.get(6)?,
                packet.get(40..)?,
            ))
        }
        _ => None,
    }
}

/// The labels of the name at the front; `None` where it is none.
fn labels(mut wire: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let mut labels = Vec::new();
    loop {
        let (&length, rest) = wire.split_first()?;
        if length == 0 {
            return Some(labels.into_iter());
        }
        let (label, rest) = rest.split_at_checked(length.into())?;
        labels.push(label);
        wire = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::lab::namespace::veth;

    #[test]
    #[ignore = "needs root"]
    fn a_packet_that_nobody_answers_is_seen_all_the_same() {
        let (here, there) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        veth(&here, "eth0", &there, "eth0").unwrap();
        for (end, host) in [(&here, 1), (&there, 2)] {
            end.ip(&format!("address add 10.0.0.{host}/24 dev eth0"))
                .unwrap();
            end.ip(&format!("address add fd00::{host}/64 dev eth0"))
                .unwrap();
        }
        let tap = Tap::open(&there).unwrap();
        let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04pypi\x03org\0\0\x01\0\x01";
        here.run(|| {
            for (from, to) in [("0.0.0.0:0", "10.0.0.2:9"), ("[::]:0", "[fd00::2]:53")] {
                UdpSocket::bind(from)
                    .unwrap()
                    .send_to(question, to)
                    .unwrap();
            }
        })
        .unwrap();
        let seen = tap.look().unwrap();
        assert!(seen.packet("10.0.0.2".parse().unwrap(), UDP, Some(9)));
        assert!(seen.packet("fd00::2".parse().unwrap(), UDP, Some(53)));
        assert!(!seen.packet("fd00::2".parse().unwrap(), UDP, Some(9)));
        assert!(seen.question("pypi.org"));
        assert!(!seen.question("pypi.org.example"));
        assert!(!tap.look().unwrap().question("pypi.org"));
    }

    #[test]
    fn a_name_without_an_end_is_no_name() {
        assert!(labels(b"\x04pypi\x03org\0").is_some());
        assert!(labels(b"\x04pypi\x03org").is_none());
        assert!(labels(b"\x04pyp").is_none());
        assert!(labels(b"").is_none());
    }

    #[test]
    fn frames_that_are_cut_short_are_not_packets() {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd]);
        frame.resize(54, 0);
        assert!(network(&frame).is_some());
        for length in 0..frame.len() {
            assert!(network(&frame[..length]).is_none(), "{length}");
        }
    }
}
