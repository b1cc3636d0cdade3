//! IPv6 extension headers: data in them, on the way to an approved address, and
//! what they put before the port.

use std::io;

use crate::lab::{
    battery::{
        Channel,
        field::Field,
        frame::{Packet, TCP, octets},
        ledger::Pieces,
    },
    channels::raw::{self, PIECE, PORT, approved, door, padded},
    probe::Family,
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
/// For experiments (RFC 4727).
const UNKNOWN: u8 = 253;

const PADN: u8 = 1;
/// For experiments; whoever does not know it goes on behind it.
const OPTION: u8 = 0x1e;

/// Bytes of an option that make, with its head, whole words of eight bytes.
const DATA: u8 = 244;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "hop-by-hop-padding",
        "data as the padding of hop-by-hop options, to an approved address",
        "RFC 4942 section 2.1.9.5, THC-IPv6",
        |field, pieces| options(field, pieces, &[(HOP_BY_HOP, PADN)]),
    ),
    Channel::stop(
        "hop-by-hop-unknown",
        "data in a hop-by-hop option that nobody has assigned",
        "scapy, Graf 2003",
        |field, pieces| options(field, pieces, &[(HOP_BY_HOP, OPTION)]),
    ),
    Channel::stop(
        "destination-options-padding",
        "data as the padding of destination options",
        "covert6, Graf 2003",
        |field, pieces| options(field, pieces, &[(DESTINATION_OPTIONS, PADN)]),
    ),
    Channel::stop(
        "destination-options-unknown",
        "data in a destination option that nobody has assigned",
        "Graf 2003, scapy",
        |field, pieces| options(field, pieces, &[(DESTINATION_OPTIONS, OPTION)]),
    ),
    Channel::stop(
        "extensions-repeated",
        "destination options four times, with data in each",
        "RFC 7045, THC-IPv6 firewall6",
        |field, pieces| options(field, pieces, &[(DESTINATION_OPTIONS, OPTION); 4]),
    ),
    Channel::stop(
        "extensions-misplaced",
        "hop-by-hop options with data where they must not stand",
        "THC-IPv6 implementation6",
        |field, pieces| {
            let both = [(DESTINATION_OPTIONS, PADN), (HOP_BY_HOP, PADN)];
            options(field, pieces, &both)
        },
    ),
    Channel::stop(
        "extensions-many",
        "more extension headers than a filter reads before a port that is not approved",
        "RFC 7112, Atlasis 2012",
        |field, pieces| before_port(field, pieces, &[0; 30]),
    ),
    Channel::stop(
        "extensions-long",
        "extension headers of 800 bytes before a port that is not approved",
        "RFC 7112, THC-IPv6 firewall6",
        |field, pieces| before_port(field, pieces, &[99]),
    ),
    Channel::stop(
        "extensions-unknown",
        "a header that nobody has assigned before a segment to an approved port",
        "RFC 6564, scapy",
        |field, pieces| {
            let mut packet = approved(field.side(Family::V6)?, &[])?;
            packet.extensions = vec![(UNKNOWN, vec![0; 8])];
            behind(field, pieces, &packet)
        },
    ),
    Channel::stop(
        "no-next-header",
        "data behind a header that says that nothing follows",
        "Graf 2003, Lucena 2005",
        |field, pieces| {
            let mut packet = approved(field.side(Family::V6)?, &[])?;
            packet.protocol = NO_NEXT_HEADER;
            packet.payload.clear();
            behind(field, pieces, &packet)
        },
    ),
    Channel::stop(
        "authentication-header",
        "an authentication header before a segment to an approved port",
        "Lucena 2005, scapy",
        |field, pieces| {
            let mut packet = approved(field.side(Family::V6)?, &[])?;
            let header = [&[TCP, 4, 0, 0][..], &[0; 20]].concat();
            packet.payload.splice(..0, header);
            packet.protocol = AUTHENTICATION;
            behind(field, pieces, &packet)
        },
    ),
    Channel::stop(
        "routing-0",
        "an approved address as a stop on the way to one that no rule allows, by a header of type 0",
        "RFC 5095, scapy",
        |field, pieces| route(field, pieces, [0, 1, 0, 0, 0, 0]),
    ),
    Channel::stop(
        "routing-2",
        "the same as a home address of mobile IPv6",
        "RFC 6275, scapy",
        |field, pieces| route(field, pieces, [2, 1, 0, 0, 0, 0]),
    ),
    Channel::stop(
        "routing-3",
        "the same by the source routes of low-power networks",
        "RFC 6554, Contiki",
        |field, pieces| route(field, pieces, [3, 1, 0, 0, 0, 0]),
    ),
    Channel::stop(
        "routing-4",
        "the same by segment routing",
        "RFC 8754, ip route encap seg6",
        |field, pieces| route(field, pieces, [4, 1, 0, 0, 0, 0]),
    ),
    Channel::stop(
        "jumbogram",
        "a length of zero, and the real one in a hop-by-hop option",
        "RFC 2675, scapy",
        jumbogram,
    ),
];

/// Data in the last option of the last of these headers, each with one option.
fn options(field: &Field, pieces: &Pieces, all: &[(u8, u8)]) -> io::Result<()> {
    let harmless = approved(field.side(Family::V6)?, &[])?;
    raw::pieces(field, pieces, DATA.into(), |piece| {
        let data = padded(piece, DATA.into());
        let header = |&(kind, option): &(u8, u8)| {
            let head = [0, DATA / 8, option, DATA];
            (kind, [&head[..], &data].concat())
        };
        let extensions = all.iter().map(header).collect();
        field.frame(&Packet {
            extensions,
            ..harmless.clone()
        })
    })
}

/// A datagram to a port that is not approved, behind destination options that have so
/// many words of eight bytes beside their first.
fn before_port(field: &Field, pieces: &Pieces, headers: &[u8]) -> io::Result<()> {
    let side = field.side(Family::V6)?;
    let (address, _) = door(side)?;
    let header = |&words: &u8| {
        let mut bytes = vec![0; (usize::from(words) + 1) * 8];
        bytes[1] = words;
        (DESTINATION_OPTIONS, bytes)
    };
    let extensions: Vec<_> = headers.iter().map(header).collect();
    raw::pieces(field, pieces, 600, |piece| {
        let mut packet = Packet::udp((side.local, 40_000), (address, PORT), piece);
        packet.extensions.clone_from(&extensions);
        field.frame(&packet)
    })
}

/// The packet, with each piece behind what it has.
fn behind(field: &Field, pieces: &Pieces, packet: &Packet) -> io::Result<()> {
    raw::pieces(field, pieces, PIECE, |piece| {
        let mut packet = packet.clone();
        packet.payload.extend(piece);
        field.frame(&packet)
    })
}

/// `head` is what stands before the addresses of the route.
fn route(field: &Field, pieces: &Pieces, head: [u8; 6]) -> io::Result<()> {
    let side = field.side(Family::V6)?;
    let mut packet = approved(side, &[])?;
    let header = [&[0, 2][..], &head, &octets(side.denied)].concat();
    packet.extensions = vec![(ROUTING, header)];
    behind(field, pieces, &packet)
}

fn jumbogram(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(Family::V6)?;
    raw::pieces(field, pieces, PIECE, |piece| {
        let mut packet = approved(side, piece).unwrap_or_else(|_| raw::denied(side, piece));
        let length = u32::try_from(8 + packet.payload.len()).unwrap_or_default();
        let option = [&[0, 0, 0xc2, 4][..], &length.to_be_bytes()].concat();
        packet.extensions = vec![(HOP_BY_HOP, option)];
        let mut frame = field.frame(&packet);
        frame[18..20].fill(0);
        frame
    })
}
