//! Fragments.

use std::io;

use crate::lab::{
    battery::{
        Channel, each,
        field::{Field, Side},
        frame::{ACK, Packet},
        ledger::Pieces,
    },
    channels::raw::{self, PIECE, PORT, denied, door, padded},
    probe::Family,
};

/// Bytes of the first fragment that carries a piece, a multiple of eight.
const FIRST: usize = 600;
const UDP_HEADER: usize = 8;
const FRAGMENT_HEADER: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "fragments",
        "datagrams in fragments to an address that no rule allows",
        "fragroute, nmap -f",
        |field, pieces| split(field, Family::V4, pieces),
    ),
    Channel::stop(
        "fragments6",
        "IPv6 datagrams in fragments to an address that no rule allows",
        "fragroute6, THC-IPv6",
        |field, pieces| split(field, Family::V6, pieces),
    ),
    Channel::stop(
        "fragments-headless",
        "fragments to an approved address whose first one, with the port, never comes",
        "RFC 1858, scapy",
        |field, pieces| headless(field.side(Family::V4)?, field, pieces),
    ),
    Channel::stop(
        "fragments6-headless",
        "the same over IPv6",
        "RFC 7112, scapy",
        |field, pieces| headless(field.side(Family::V6)?, field, pieces),
    ),
    Channel::stop(
        "fragments-tiny",
        "a first fragment of eight bytes, so that most of the TCP header is in the second",
        "RFC 1858, fragroute ip_frag 8, nmap -f",
        |field, pieces| cut(field, pieces, 8, false),
    ),
    Channel::stop(
        "fragments-unordered",
        "fragments to a port that is not approved, the last before the first",
        "fragroute order random",
        |field, pieces| cut(field, pieces, 24, true),
    ),
    Channel::stop(
        "fragments-overlapping",
        "a first fragment to an approved port, and another in its place with another port",
        "RFC 3128, Ptacek and Newsham 1998",
        overlapping,
    ),
    Channel::stop(
        "fragments6-port-behind",
        "a first fragment with only an extension header, so that the port is in the second",
        "RFC 7112, THC-IPv6 firewall6",
        port_behind,
    ),
    Channel::stop(
        "fragments6-atomic",
        "a fragment header on a whole packet to an address that no rule allows",
        "RFC 6946, THC-IPv6",
        |field, pieces| {
            let side = field.side(Family::V6)?;
            raw::pieces(field, pieces, PIECE, |piece| {
                let fragment = Some((0, false));
                field.frame(&Packet {
                    fragment,
                    ..denied(side, piece)
                })
            })
        },
    ),
    Channel::stop(
        "fragments6-nested",
        "fragment headers in a fragment, to a port that is not approved",
        "RFC 7112, Atlasis 2012",
        |field, pieces| {
            let side = field.side(Family::V6)?;
            let (address, _) = door(side)?;
            raw::pieces(field, pieces, PIECE, |piece| {
                let mut packet = Packet::udp((side.local, 40_000), (address, PORT), piece);
                packet.extensions = vec![(FRAGMENT_HEADER, vec![0; 8]); 2];
                field.frame(&packet)
            })
        },
    ),
];

/// The fragments of a packet, cut at one place.
fn fragments(packet: &Packet, at: usize, id: usize) -> [Packet; 2] {
    let fragment = |offset: usize, more, payload: &[u8]| Packet {
        id: u32::try_from(id).unwrap_or_default(),
        fragment: Some((u16::try_from(offset / 8).unwrap_or_default(), more)),
        payload: payload.to_vec(),
        ..packet.clone()
    };
    let (first, rest) = packet.payload.split_at(at);
    [fragment(0, true, first), fragment(at, false, rest)]
}

fn split(field: &Field, family: Family, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(family)?;
    let wire = field.wire()?;
    let pieces: Vec<_> = pieces.of(FIRST - UDP_HEADER).collect();
    each(pieces.chunks(2).enumerate(), |(id, pair)| {
        let mut data = padded(&pair[0], FIRST - UDP_HEADER);
        data.extend(pair[1..].concat());
        data.push(0);
        let fragments = fragments(&denied(side, &data), FIRST, id);
        each(&fragments, |packet| wire.send(&field.frame(packet)))
    })
}

fn headless(side: &Side, field: &Field, pieces: &Pieces) -> io::Result<()> {
    let approved = raw::approved(side, &[])?;
    raw::pieces(field, pieces, PIECE, |piece| {
        field.frame(&Packet {
            id: 7_777,
            fragment: Some((185, false)),
            payload: piece.to_vec(),
            ..approved.clone()
        })
    })
}

/// To an approved address, and a port of it that is not.
fn cut(field: &Field, pieces: &Pieces, at: usize, last_first: bool) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let (address, _) = door(side)?;
    let wire = field.wire()?;
    each(pieces.of(PIECE).enumerate(), |(id, piece)| {
        // So that no piece is cut.
        let data = [&[0; 8], &piece[..]].concat();
        let to = (address, PORT);
        let packet = Packet::tcp((side.local, 40_000), to, (1, 1), ACK, &data);
        let mut fragments = fragments(&packet, at, 20_000 + id);
        if last_first {
            fragments.reverse();
        }
        each(&fragments, |packet| wire.send(&field.frame(packet)))
    })
}

fn overlapping(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let (address, _) = door(side)?;
    let wire = field.wire()?;
    let harmless = raw::approved(side, &[0; 40])?;
    each(pieces.of(PIECE).enumerate(), |(id, piece)| {
        let data = padded(&piece, PIECE + 28);
        let to = (address, PORT);
        let packet = Packet::tcp((side.local, 40_000), to, (1, 1), ACK, &data);
        let [approved, _] = fragments(&harmless, 24, 30_000 + id);
        let [another, last] = fragments(&packet, PIECE + 24, 30_000 + id);
        each([approved, another, last], |packet| {
            wire.send(&field.frame(&packet))
        })
    })
}

fn port_behind(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(Family::V6)?;
    let (address, _) = door(side)?;
    let wire = field.wire()?;
    each(pieces.of(PIECE).enumerate(), |(id, piece)| {
        let datagram = Packet::udp((side.local, 40_000), (address, PORT), &piece);
        let options = [
            &[datagram.protocol, 0, 1, 4, 0, 0, 0, 0],
            &datagram.payload[..],
        ]
        .concat();
        let whole = Packet {
            protocol: DESTINATION_OPTIONS,
            payload: options,
            ..datagram
        };
        let fragments = fragments(&whole, 8, 40_000 + id);
        each(&fragments, |packet| wire.send(&field.frame(packet)))
    })
}
