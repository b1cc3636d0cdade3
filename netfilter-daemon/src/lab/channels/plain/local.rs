//! To whoever is on the link, or on every link.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use super::{ROOM, packets};
use crate::lab::{
    battery::{
        Channel, each,
        field::Field,
        frame::{Packet, octets},
        ledger::Pieces,
    },
    probe::Family,
};

/// Nobody uses it.
const PORT: u16 = 9999;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "multicast",
        "datagrams to a multicast group (239.1.2.3)",
        "SSDP and mDNS, through which malware finds its peers",
        |field, pieces| ipv4(field, Ipv4Addr::new(239, 1, 2, 3), pieces),
    ),
    Channel::stop(
        "multicast-link",
        "datagrams to all systems on the link (224.0.0.1)",
        "covert channels in local multicast",
        |field, pieces| ipv4(field, Ipv4Addr::new(224, 0, 0, 1), pieces),
    ),
    Channel::stop(
        "multicast6",
        "datagrams to all nodes on the link (ff02::1)",
        "mDNS and LLMNR over IPv6",
        |field, pieces| ipv6(field, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), pieces),
    ),
    Channel::stop(
        "multicast-routed6",
        "datagrams to a group of the site (ff05::beef)",
        "multicast that routers carry on",
        |field, pieces| {
            ipv6(
                field,
                Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xbeef),
                pieces,
            )
        },
    ),
    Channel::stop(
        "broadcast",
        "datagrams to everybody (255.255.255.255)",
        "tools that look for peers on the network",
        |field, pieces| ipv4(field, Ipv4Addr::BROADCAST, pieces),
    ),
    Channel::stop(
        "broadcast-subnet",
        "datagrams to the broadcast address of the subnet",
        "Wake-on-LAN, NetBIOS",
        |field, pieces| {
            let IpAddr::V4(local) = field.side(Family::V4)?.local else {
                return Ok(());
            };
            let [a, b, c, _] = local.octets();
            ipv4(field, Ipv4Addr::new(a, b, c, 255), pieces)
        },
    ),
    Channel::stop(
        "gateway",
        "datagrams to the router itself, which is on the link",
        "a neighbour that collects for somebody else",
        |field, pieces| {
            let IpAddr::V4(local) = field.side(Family::V4)?.local else {
                return Ok(());
            };
            let [a, b, c, _] = local.octets();
            ipv4(field, Ipv4Addr::new(a, b, c, 1), pieces)
        },
    ),
    Channel::stop(
        "link-local",
        "datagrams to an address that needs no router (169.254.77.77)",
        "a neighbour without DHCP; instance metadata",
        |field, pieces| ipv4(field, Ipv4Addr::new(169, 254, 77, 77), pieces),
    ),
    Channel::stop(
        "link-local6",
        "datagrams to a link-local address (fe80::77)",
        "a neighbour, where only global addresses have rules",
        |field, pieces| ipv6(field, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77), pieces),
    ),
    Channel::stop(
        "metadata",
        "TCP segments to the address of instance metadata (169.254.169.254)",
        "every theft of a cloud identity, the other way round",
        |field, pieces| {
            let from = field.side(Family::V4)?.local;
            let to = IpAddr::from([169, 254, 169, 254]);
            packets(field, pieces, |piece| {
                Packet::tcp((from, 40_002), (to, 80), (1, 1), 0x18, piece)
            })
        },
    ),
];

/// Through a socket where there is a way, for broadcast needs leave, and multicast a route.
fn ipv4(field: &Field, to: Ipv4Addr, pieces: &Pieces) -> io::Result<()> {
    let local = field.side(Family::V4)?.local;
    if to.is_link_local() {
        return raw(field, local, to.into(), pieces);
    }
    let socket = UdpSocket::bind((local, 0))?;
    socket.set_broadcast(true)?;
    each(pieces.of(ROOM), |piece| {
        socket.send_to(&piece, (to, PORT)).map(drop)
    })
}

fn ipv6(field: &Field, to: Ipv6Addr, pieces: &Pieces) -> io::Result<()> {
    raw(field, field.side(Family::V6)?.local, to.into(), pieces)
}

/// Without asking who has the address.
fn raw(field: &Field, from: IpAddr, to: IpAddr, pieces: &Pieces) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.of(ROOM), |piece| {
        let packet = Packet::udp((from, 40_003), (to, PORT), &piece);
        let mut frame = field.frame(&packet);
        frame[..6].copy_from_slice(&group(field, to));
        wire.send(&frame)
    })
}

/// The hardware address of a group (RFC 2464 section 7); else the gateway's.
fn group(field: &Field, to: IpAddr) -> [u8; 6] {
    match octets(to)[..] {
        [0xff, .., a, b, c, d] => [0x33, 0x33, a, b, c, d],
        _ => field.gateway,
    }
}
