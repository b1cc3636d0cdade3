//! DNS to others than the resolver, and its kin that ask the neighbours.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpStream, UdpSocket},
    time::Duration,
};

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::{Field, ZONE},
        ledger::Pieces,
    },
    probe::Family,
};

use super::message::{
    A, IN, IN_NAME, LABEL, Message, PORT, TXT, binary_name, framed, name, read, record, wire,
};

/// A connection that nobody answers is given up then.
const PATIENCE: Duration = Duration::from_secs(1);

const TLS_PORT: u16 = 853;

/// The types of records of TLS (RFC 8446 section 5.1).
const TLS_DATA: u8 = 23;

/// Where mDNS (RFC 6762), LLMNR (RFC 4795) and NetBIOS (RFC 1002) listen.
const MDNS_PORT: u16 = 5353;
const MDNS_GROUPS: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(224, 0, 0, 251),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
);
const LLMNR_PORT: u16 = 5355;
const LLMNR_GROUPS: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(224, 0, 0, 252),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3),
);
const NETBIOS_PORT: u16 = 137;
const NETBIOS_NAME: u16 = 32;
/// Registration by broadcast.
const NETBIOS_REGISTER: u16 = 0x2910;

/// As much as a message carries.
const MESSAGE: usize = 1000;

pub(super) const UDP: Channel = Channel {
    name: "dns-elsewhere",
    how: "questions to a server that is no resolver of the policy",
    seen_in: "iodine and dns2tcp without a resolver in between",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let side = field.side(Family::V6)?;
        let socket = UdpSocket::bind((side.local, 0))?;
        each((0..).zip(pieces.of(IN_NAME)), |(id, piece)| {
            let message = Message::ask(id, &name(&piece, "dns-elsewhere", ZONE), TXT);
            let server = (side.denied, PORT);
            socket.send_to(&message.bytes(), server).map(drop)
        })
    },
    read: Some(|frame| read(frame, "dns-elsewhere")),
};

pub(super) const TCP: Channel = Channel {
    name: "dns-elsewhere-tcp",
    how: "answers, which have room, in a connection to a DNS server that is no resolver of the policy",
    seen_in: "dnscat2, zone transfers turned around",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let messages = pieces.of(MESSAGE).map(|piece| message(&piece).framed());
        deliver(field.side(Family::V4)?.denied, PORT, messages)
    },
    read: None,
};

pub(super) const TLS: Channel = Channel {
    name: "dns-over-tls",
    how: "DNS over TLS (RFC 7858) to a server that no rule allows",
    seen_in: "stubby, systemd-resolved, Android's private DNS",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let records = pieces.of(MESSAGE).map(|piece| {
            let message = message(&piece).framed();
            [&[TLS_DATA, 3, 3][..], &framed(&message)].concat()
        });
        deliver(field.side(Family::V6)?.denied, TLS_PORT, records)
    },
    read: None,
};

pub(super) const HTTPS: Channel = Channel {
    name: "dns-over-https",
    how: "DNS over HTTPS (RFC 8484) to a server that no rule allows",
    seen_in: "browsers, godoh, dnsExfiltrator, Godlua",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let requests = pieces.of(MESSAGE).map(|piece| {
            let message = message(&piece).bytes();
            let head = format!(
                "POST /dns-query HTTP/1.1\r\nHost: {ZONE}\r\nContent-Type: application/dns-message\r\nContent-Length: {}\r\n\r\n",
                message.len()
            );
            [head.as_bytes(), &message].concat()
        });
        deliver(field.side(Family::V4)?.denied, 443, requests)
    },
    read: None,
};

pub(super) const QUIC: Channel = Channel {
    name: "dns-over-quic",
    how: "DNS over QUIC (RFC 9250) to a server that no rule allows",
    seen_in: "AdGuard, dnsproxy",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let side = field.side(Family::V4)?;
        let socket = UdpSocket::bind((side.local, 0))?;
        each(pieces.of(MESSAGE), |piece| {
            let packet = [&[0x40][..], &message(&piece).framed()].concat();
            socket.send_to(&packet, (side.denied, TLS_PORT)).map(drop)
        })
    },
    read: None,
};

pub(super) const MDNS: Channel = Channel {
    name: "mdns",
    how: "labels of names that the neighbours are asked for by mDNS, over IPv4 and IPv6",
    seen_in: "Avahi, Bonjour, systemd-resolved",
    aim: Aim::Stop,
    carry: |field, pieces| groups(field, pieces, MDNS_GROUPS, MDNS_PORT),
    read: None,
};

pub(super) const LLMNR: Channel = Channel {
    name: "llmnr",
    how: "labels of names that the neighbours are asked for by LLMNR, over IPv4 and IPv6",
    seen_in: "Windows, systemd-resolved; Responder answers it",
    aim: Aim::Stop,
    carry: |field, pieces| groups(field, pieces, LLMNR_GROUPS, LLMNR_PORT),
    read: None,
};

pub(super) const NBNS: Channel = Channel {
    name: "nbns",
    how: "NetBIOS names that are announced to the neighbours",
    seen_in: "Windows, Samba; Responder answers it",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let socket = UdpSocket::bind((field.side(Family::V4)?.local, 0))?;
        socket.set_broadcast(true)?;
        each((0..).zip(pieces.of(LABEL)), |(id, piece)| {
            // "SECRET", as NetBIOS writes names, with the piece as its scope.
            let name = binary_name(&piece, "local");
            let name = [&b"\x20FDEFEDFCEFFECACACACACACACACACAAA"[..], &name].concat();
            let mut message = Message::ask(id, &name, NETBIOS_NAME);
            message.flags = NETBIOS_REGISTER;
            let everybody = (Ipv4Addr::BROADCAST, NETBIOS_PORT);
            socket.send_to(&message.bytes(), everybody).map(drop)
        })
    },
    read: None,
};

/// A message with a text that is longer than names are.
fn message(piece: &[u8]) -> Message {
    let name = wire(ZONE);
    let mut message = Message::ask(1, &name, TXT);
    message.answers.push(record(&name, TXT, IN, 0, piece));
    message
}

/// Sends everything in one connection.
fn deliver(address: IpAddr, port: u16, parts: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&(address, port).into(), PATIENCE)?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut echoes = connection.try_clone()?;
    std::thread::spawn(move || io::copy(&mut echoes, &mut io::sink()).ok());
    for part in parts {
        connection.write_all(&part)?;
    }
    connection.shutdown(Shutdown::Write)?;
    // The sink has read all when it hangs up.
    while let Ok(1..) = connection.read(&mut [0; 1024]) {}
    Ok(())
}

/// Asks a group of each family in turn.
fn groups(
    field: &Field,
    pieces: &Pieces,
    groups: (Ipv4Addr, Ipv6Addr),
    port: u16,
) -> io::Result<()> {
    let v4 = UdpSocket::bind((field.side(Family::V4)?.local, 0))?;
    let v6 = UdpSocket::bind((field.side(Family::V6)?.local, 0))?;
    let here = SocketAddrV6::new(groups.1, port, 0, field.index);
    let ways: [(_, SocketAddr); 2] = [(v4, (groups.0, port).into()), (v6, here.into())];
    each((0..).zip(pieces.of(LABEL)), |(id, piece)| {
        let message = Message::ask(id, &binary_name(&piece, "local"), A).bytes();
        let (socket, group) = &ways[usize::from(id) % 2];
        socket.send_to(&message, group).map(drop)
    })
}
