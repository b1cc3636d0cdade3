//! IPv4 addresses as IPv6 has them: `::ffff:a.b.c.d`.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

use super::{ROOM, packets};
use crate::lab::{
    battery::{
        Channel, each,
        field::{Field, missing},
        frame::Packet,
        ledger::Pieces,
    },
    probe::Family,
};

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "mapped-tcp",
        "a TCP connection of an IPv6 socket to the IPv4-mapped form of a denied address",
        "what Java and Go do by default; rules that compare text",
        |field, pieces| super::tcp(mapped(field.side(Family::V4)?.denied)?.into(), 443, pieces),
    ),
    Channel::stop(
        "mapped-udp",
        "datagrams of an IPv6 socket to the IPv4-mapped form of a denied address",
        "what Java and Go do by default",
        |field, pieces| {
            let to = mapped(field.side(Family::V4)?.denied)?;
            let socket = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
            each(pieces.of(ROOM), |piece| {
                socket.send_to(&piece, (to, 443)).map(drop)
            })
        },
    ),
    Channel::stop(
        "mapped-packets",
        "IPv6 packets to the IPv4-mapped form of a denied address, as no socket sends them",
        "draft-itojun-v6ops-v4mapped-harmful",
        |field, pieces| packets_to(field, field.side(Family::V4)?.denied, pieces),
    ),
    Channel::stop(
        "mapped-approved",
        "IPv6 packets to the IPv4-mapped form of an approved address and port",
        "filters that keep one table for both families",
        |field, pieces| packets_to(field, field.side(Family::V4)?.approved()?.0, pieces),
    ),
];

fn mapped(address: IpAddr) -> io::Result<Ipv6Addr> {
    match address {
        IpAddr::V4(address) => Ok(address.to_ipv6_mapped()),
        IpAddr::V6(_) => Err(missing("no IPv4 here")),
    }
}

fn packets_to(field: &Field, to: IpAddr, pieces: &Pieces) -> io::Result<()> {
    let from = field.side(Family::V6)?.local;
    let port = field
        .side(Family::V4)?
        .approved
        .and_then(|(_, knock)| knock.port());
    let to = mapped(to)?.into();
    packets(field, pieces, |piece| {
        let ports = (40_001, port.unwrap_or(443));
        Packet::tcp((from, ports.0), (to, ports.1), (1, 1), 0x18, piece)
    })
}
