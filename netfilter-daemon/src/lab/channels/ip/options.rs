//! Options of IPv4 headers: data in them, on the way to an approved address, and
//! routes that lead on from there.

use std::io;

use crate::lab::{
    battery::{
        Aim, Channel,
        field::Field,
        frame::{Packet, octets},
        ledger::{Found, Pieces},
    },
    channels::raw::{self, PART, PIECE, approved, approved_from, padded},
    probe::Family,
};

/// Bytes of options that a header has room for.
const ROOM: usize = 40;

const END: u8 = 0;
const NOP: u8 = 1;
/// The source port by which the sink knows them.
const NOP_PORT: u16 = 40_041;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "option-record-route",
        "data in the IPv4 option that records a route, to an approved address",
        "ping -R, scapy",
        |field, pieces| option(field, pieces, &[7, 39, 40]),
    ),
    Channel::stop(
        "option-timestamp",
        "data in the IPv4 option that collects timestamps",
        "ping -T, scapy",
        |field, pieces| option(field, pieces, &[68, 40, 41, 0]),
    ),
    Channel::stop(
        "option-security",
        "data in the IPv4 option for security labels",
        "RFC 1108, scapy",
        |field, pieces| option(field, pieces, &[130, 38]),
    ),
    Channel::stop(
        "option-router-alert",
        "data behind a router alert, the one option that hosts send",
        "RFC 2113, scapy",
        |field, pieces| option(field, pieces, &[148, 4, 0, 0]),
    ),
    Channel::stop(
        "option-unknown",
        "data in an IPv4 option that nobody has assigned",
        "RFC 4727, scapy",
        |field, pieces| option(field, pieces, &[158, 38]),
    ),
    Channel::stop(
        "option-end",
        "data behind the end of the IPv4 options",
        "Handel and Sandford 1996",
        |field, pieces| option(field, pieces, &[END]),
    ),
    Channel {
        name: "option-nop",
        how: "bits as the choice between two IPv4 options that mean nothing",
        seen_in: "Ahsan and Kundur 2002",
        aim: Aim::Stop,
        carry: nops,
        read: Some(read_nops),
    },
    Channel::stop(
        "source-route-loose",
        "an approved address as a stop on the way to one that no rule allows",
        "nmap --ip-options L, netcat -g",
        |field, pieces| source_route(field, pieces, 131),
    ),
    Channel::stop(
        "source-route-strict",
        "the same with every stop named",
        "nmap --ip-options S",
        |field, pieces| source_route(field, pieces, 137),
    ),
];

fn option(field: &Field, pieces: &Pieces, head: &[u8]) -> io::Result<()> {
    let harmless = approved(field.side(Family::V4)?, &[])?;
    raw::pieces(field, pieces, 36, |piece| {
        let options = padded(&[head, piece].concat(), ROOM);
        field.frame(&Packet {
            options,
            ..harmless.clone()
        })
    })
}

fn nops(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let harmless = approved_from(field.side(Family::V4)?, NOP_PORT, &[])?;
    raw::parts(field, pieces, |number, bytes: [u8; PART]| {
        let word = u32::from_be_bytes(bytes);
        let bit = |index: u32| if word >> index & 1 == 1 { NOP } else { END };
        field.frame(&Packet {
            id: number.into(),
            options: (0..32).map(bit).collect(),
            ..harmless.clone()
        })
    })
}

fn read_nops(frame: &[u8]) -> Option<Found> {
    let port = frame.get(66..68)?;
    if frame.get(12..15)? != [8, 0, 0x4d] || frame[23] != 6 || port != NOP_PORT.to_be_bytes() {
        return None;
    }
    let bits = frame[34..66].iter().enumerate();
    let word = bits
        .map(|(index, option)| u32::from(*option == NOP) << index)
        .sum::<u32>();
    const { assert!(PART == size_of::<u32>()) };
    raw::part::<PART>([frame[18], frame[19]], &word.to_be_bytes())
}

fn source_route(field: &Field, pieces: &Pieces, kind: u8) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let harmless = approved(side, &[])?;
    let route = [&[kind, 7, 4][..], &octets(side.denied), &[NOP]].concat();
    raw::pieces(field, pieces, PIECE, |piece| {
        let mut packet = harmless.clone();
        packet.options.clone_from(&route);
        packet.payload.extend(piece);
        field.frame(&packet.checked(16))
    })
}
