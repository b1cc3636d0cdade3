//! One attempt, with the sockets that any program has.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket,
};

use super::{Family, Knock, Probe, Target};

/// What a packet that was dropped without a word costs.
const PATIENCE: Duration = Duration::from_millis(1500);

const PAYLOAD: &[u8; 16] = b"netfilter-daemon";

pub(super) struct Attempt {
    /// Where to, unless the name had no address.
    pub(super) address: Option<IpAddr>,
    /// How long the answer took, or what came instead.
    pub(super) result: Result<Duration, String>,
}

pub(super) fn attempt(probe: &Probe) -> Attempt {
    let address = match &probe.target {
        Target::Address(address) => Ok(*address),
        Target::Name { name, family } => look_up(name, *family),
    };
    let result = address.clone().and_then(|address| {
        let begun = Instant::now();
        match probe.knock {
            Knock::Tcp(port) => connection(SocketAddr::new(address, port)),
            Knock::Udp(port) => datagram(SocketAddr::new(address, port)),
            Knock::Icmp => ping(address),
        }
        .map(|()| begun.elapsed())
        .map_err(in_words)
    });
    Attempt {
        address: address.ok(),
        result,
    }
}

fn look_up(name: &str, family: Family) -> Result<IpAddr, String> {
    let addresses = (name, 0)
        .to_socket_addrs()
        .map_err(|error| match error.to_string() {
            said if said.ends_with("Name or service not known") => "NXDOMAIN".into(),
            said if said.ends_with("Temporary failure in name resolution") => "not resolved".into(),
            said => said,
        })?;
    addresses
        .map(|address| address.ip())
        .find(|address| Family::of(*address) == family)
        .ok_or_else(|| "no such address".into())
}

fn connection(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(PAYLOAD)?;
    stream.shutdown(Shutdown::Write)?;
    let mut echo = [0; PAYLOAD.len()];
    stream.read_exact(&mut echo)
}

fn datagram(to: SocketAddr) -> io::Result<()> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(PAYLOAD)?;
    socket.recv(&mut [0; PAYLOAD.len()]).map(drop)
}

/// An ICMP echo from a raw socket, so that no program and no kernel parameter
/// has a say in it.
fn ping(to: IpAddr) -> io::Result<()> {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    connect(
        raw.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(to, 0)),
    )?;
    // The standard library has no raw sockets, but reading and waiting are the same.
    let socket = UdpSocket::from(raw);
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut message = [request, 0, 0, 0, b'l', b'a', b'b', 0];
    // The kernel fills in the checksum in IPv6 only (RFC 3542, section 3.1).
    if to.is_ipv4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    socket.send(&message)?;
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = [0; 128];
    while Instant::now() < deadline {
        let length = socket.recv(&mut bytes)?;
        // In IPv4 raw sockets get the IP header too.
        let header = if to.is_ipv4() {
            usize::from(bytes[0] & 15) * 4
        } else {
            0
        };
        if bytes.get(header..length).and_then(<[u8]>::first) == Some(&reply) {
            return Ok(());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// RFC 1071, for messages of even length.
fn checksum(message: &[u8]) -> u16 {
    !message.chunks_exact(2).fold(0, |sum: u16, pair| {
        let (sum, carried) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
        sum + u16::from(carried)
    })
}

fn in_words(error: io::Error) -> String {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut,
        WouldBlock,
    };
    match error.kind() {
        TimedOut | WouldBlock => "no answer".into(),
        ConnectionRefused => "refused".into(),
        HostUnreachable | PermissionDenied => "prohibited".into(),
        NetworkUnreachable => "no route".into(),
        // What a raw socket of IPv6 is told when its packet is dropped at once.
        _ if error.raw_os_error() == Some(libc::ENOBUFS) => "dropped".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Moment;
    use super::*;

    #[test]
    fn that_nothing_listens_is_told_from_that_nothing_answers() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let result = |knock| {
            let probe = Probe {
                group: String::new(),
                what: "",
                moment: Moment::WithNames,
                knock,
                target: Target::Address(Ipv4Addr::LOCALHOST.into()),
                allowed: true,
            };
            attempt(&probe).result.unwrap_err()
        };
        assert_eq!(result(Knock::Udp(port)), "no answer");
        assert_eq!(result(Knock::Tcp(port)), "refused");
    }

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        let mut message = [8, 0, 0, 0, b'l', b'a', b'b', 0];
        let sum = checksum(&message);
        assert_ne!(sum, 0);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&message), 0);
    }
}
