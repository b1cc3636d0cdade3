//! Ordinary traffic to where no rule allows it.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::lab::{
    battery::{
        Channel, each,
        field::Field,
        frame::{ICMP, ICMPV6, Packet, TCP, UDP},
        join,
        ledger::Pieces,
    },
    probe::{Family, Knock},
};

mod local;
mod mapped;

/// A connection that nobody answers is given up then.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of a piece in a packet.
const ROOM: usize = 1024;

pub(super) const CHANNELS: &[Channel] = &join::<COUNT>(LISTS);

const LISTS: &[&[Channel]] = &[DENIED, APPROVED, mapped::CHANNELS, local::CHANNELS];

const COUNT: usize = DENIED.len() + APPROVED.len() + mapped::CHANNELS.len() + local::CHANNELS.len();

const DENIED: &[Channel] = &[
    Channel::stop(
        "tcp",
        "a TCP connection to an address that no rule allows",
        "curl, netcat, every reverse shell",
        |field, pieces| tcp(field.side(Family::V4)?.denied, 443, pieces),
    ),
    Channel::stop(
        "tcp6",
        "a TCP connection over IPv6 to an address that no rule allows",
        "curl -6, where a firewall has rules for IPv4 only",
        |field, pieces| tcp(field.side(Family::V6)?.denied, 443, pieces),
    ),
    Channel::stop(
        "udp",
        "UDP datagrams to an address that no rule allows",
        "QUIC, netcat -u",
        |field, pieces| udp(field, Family::V4, 443, pieces),
    ),
    Channel::stop(
        "udp6",
        "UDP datagrams over IPv6 to an address that no rule allows",
        "QUIC, netcat -u",
        |field, pieces| udp(field, Family::V6, 443, pieces),
    ),
    Channel::stop(
        "ping",
        "the data of ICMP echo requests",
        "ptunnel, icmpsh, Pingback",
        |field, pieces| echo(field, Family::V4, pieces),
    ),
    Channel::stop(
        "ping6",
        "the data of ICMPv6 echo requests",
        "ICMP tunnels that were moved to IPv6",
        |field, pieces| echo(field, Family::V6, pieces),
    ),
    Channel::stop(
        "sctp",
        "DATA chunks of SCTP (IP protocol 132)",
        "withsctp, socat SCTP",
        |field, pieces| protocol(field, 132, &sctp(), pieces),
    ),
    Channel::stop(
        "dccp",
        "DCCP packets (IP protocol 33)",
        "sockets that firewalls forget: CVE-2017-6074 made them known",
        |field, pieces| protocol(field, 33, &dccp(), pieces),
    ),
    Channel::stop(
        "udp-lite",
        "UDP-Lite datagrams (IP protocol 136), which are like UDP and are not",
        "socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE)",
        |field, pieces| protocol(field, 136, &[156, 64, 1, 187, 0, 8, 0, 0], pieces),
    ),
    Channel::stop(
        "ip-protocols",
        "raw IP packets of every protocol number that has no port",
        "scapy, nping, custom transports",
        |field, pieces| protocols(field, Family::V4, pieces),
    ),
    Channel::stop(
        "ip-protocols6",
        "raw IPv6 packets of every protocol number that has no port",
        "scapy, custom transports",
        |field, pieces| protocols(field, Family::V6, pieces),
    ),
];

const APPROVED: &[Channel] = &[
    Channel::stop(
        "other-port",
        "TCP to an approved address, to a port that its rule does not list",
        "a second service on an approved host",
        |field, pieces| tcp(field.side(Family::V4)?.approved()?.0, 4444, pieces),
    ),
    Channel::stop(
        "other-port6",
        "TCP over IPv6 to an approved address, to a port that its rule does not list",
        "a second service on an approved host",
        |field, pieces| tcp(field.side(Family::V6)?.approved()?.0, 4444, pieces),
    ),
    Channel::stop(
        "other-transport",
        "UDP to an approved address and port, where the rule says TCP",
        "QUIC beside HTTPS",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            let (address, knock) = side.approved()?;
            datagrams(side.local, (address, knock.port().unwrap_or(443)), pieces)
        },
    ),
    Channel::stop(
        "approved-ping",
        "the data of ICMP echo requests to an approved address, whose rule says TCP",
        "ICMP tunnels past rules for a host",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            let to = side.approved()?.0;
            packets(field, pieces, |piece| {
                Packet::icmp(side.local, to, 8, 0, &[&[0, 7, 0, 1], piece].concat())
            })
        },
    ),
    Channel::stop(
        "approved-protocol",
        "raw IP packets of an experimental protocol (253) to an approved address",
        "rules that name hosts and no protocols",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            let to = side.approved()?.0;
            packets(field, pieces, |piece| {
                Packet::new(side.local, to, 253, piece.to_vec())
            })
        },
    ),
    Channel::stop(
        "forbidden",
        "TCP to an address within an approved range that a deny rule takes out",
        "a stranger's machine in an approved network",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            let port = match side.approved()?.1 {
                Knock::Tcp(port) => port,
                _ => 443,
            };
            tcp(side.forbidden()?, port, pieces)
        },
    ),
];

pub(super) fn tcp(address: IpAddr, port: u16, pieces: &Pieces) -> io::Result<()> {
    let address = SocketAddr::new(address, port);
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut echoes = connection.try_clone()?;
    std::thread::spawn(move || io::copy(&mut echoes, &mut io::sink()).ok());
    for piece in pieces.of(8192) {
        connection.write_all(&piece)?;
    }
    connection.shutdown(Shutdown::Write)?;
    // The sink has read all when it hangs up.
    while let Ok(1..) = connection.read(&mut [0; 1024]) {}
    Ok(())
}

fn udp(field: &Field, family: Family, port: u16, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(family)?;
    datagrams(side.local, (side.denied, port), pieces)
}

/// Through a socket of one's own.
fn datagrams(local: IpAddr, to: (IpAddr, u16), pieces: &Pieces) -> io::Result<()> {
    let socket = UdpSocket::bind((local, 0))?;
    each(pieces.of(ROOM), |piece| {
        socket.send_to(&piece, to).map(drop)
    })
}

/// A piece in each packet, to the gateway.
pub(super) fn packets(
    field: &Field,
    pieces: &Pieces,
    packet: impl Fn(&[u8]) -> Packet,
) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.of(ROOM), |piece| {
        wire.send(&field.frame(&packet(&piece)))
    })
}

fn echo(field: &Field, family: Family, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(family)?;
    let kind = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    packets(field, pieces, |piece| {
        let body = [&[0, 7, 0, 1], piece].concat();
        Packet::icmp(side.local, side.denied, kind, 0, &body)
    })
}

fn protocol(field: &Field, number: u8, header: &[u8], pieces: &Pieces) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    packets(field, pieces, |piece| {
        let payload = [header, piece].concat();
        Packet::new(side.local, side.denied, number, payload)
    })
}

/// Every protocol but those that other channels try, and extension headers.
fn protocols(field: &Field, family: Family, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(family)?;
    let wire = field.wire()?;
    let others = [0, 43, 44, 60, TCP, UDP, ICMP, ICMPV6];
    let numbers = (0..=u8::MAX).filter(|number| !others.contains(number));
    each(numbers.cycle().zip(pieces.of(256)), |(number, piece)| {
        let packet = Packet::new(side.local, side.denied, number, piece);
        wire.send(&field.frame(&packet))
    })
}

/// Ports, tag, checksum; a DATA chunk (RFC 9260 section 3.3.1).
fn sctp() -> [u8; 28] {
    let mut header = [0; 28];
    header[..4].copy_from_slice(&[156, 64, 1, 187]);
    header[12..16].copy_from_slice(&[0, 3, 4, 16]);
    header
}

/// Ports, DCCP-Data (RFC 4340 section 5.1).
fn dccp() -> [u8; 12] {
    [156, 64, 1, 187, 3, 0, 0, 0, 4, 0, 0, 1]
}
