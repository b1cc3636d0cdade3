//! Bytes around an approved question: behind its message, its datagram, its
//! packet, and in the headers before it.

use std::io;

use crate::lab::{
    battery::{Aim, Channel, each, field::Field, frame::Packet, ledger::Pieces},
    probe::Family,
};

use super::{
    message::{A, Message, PORT, RESPONSE, wire},
    names::resolver,
};

/// From it, approved questions in frames that no socket would send.
const SOURCE_PORT: u16 = 61_443;

/// As much as fits behind a question in a frame.
const BEHIND: usize = 1000;

/// Destination options (RFC 8200 section 4.6), and an option that is passed over by whom
/// does not know it.
const DESTINATION_OPTIONS: u8 = 60;
const UNKNOWN_OPTION: u8 = 0x1e;

/// Port unreachable, and what the header of ICMPv6 holds besides.
const UNREACHABLE: (u8, u8) = (1, 4);
const UNUSED: [u8; 4] = [0; 4];

pub(super) const TRAILING: Channel = Channel {
    name: "dns-trailing",
    how: "bytes behind an approved question, in its datagram",
    seen_in: "described; filters read the question and not what follows",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let question = question(field)?;
        let resolver = resolver(field, Family::V4)?;
        each(pieces.of(BEHIND), |piece| {
            let message = [&question[..], &piece].concat();
            resolver.send(&message).map(drop)
        })
    },
    read: None,
};

pub(super) const SURPLUS: Channel = Channel {
    name: "dns-surplus",
    how: "bytes behind an approved question's datagram, in its packet",
    seen_in: "options of UDP are there (RFC 9868)",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V6, pieces.of(BEHIND), |packet, piece| {
            packet.payload.extend(piece);
            field.frame(packet)
        })
    },
    read: None,
};

pub(super) const TRAILER: Channel = Channel {
    name: "dns-trailer",
    how: "bytes behind an approved question's packet, in its frame",
    seen_in: "Etherleak leaked memory there",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V4, pieces.of(BEHIND), |packet, piece| {
            [&field.frame(packet)[..], piece].concat()
        })
    },
    read: None,
};

pub(super) const IPV4_OPTIONS: Channel = Channel {
    name: "dns-ip-options",
    how: "options of IPv4 before an approved question",
    seen_in: "described; Covert_TCP's kin",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V4, pieces.of(36), |packet, piece| {
            packet.options = vec![UNKNOWN_OPTION, option_length(piece, 2)];
            packet.options.extend(piece);
            packet
                .options
                .resize(packet.options.len().next_multiple_of(4), 0);
            field.frame(packet)
        })
    },
    read: None,
};

pub(super) const EXTENSION: Channel = Channel {
    name: "dns-extension",
    how: "destination options of IPv6 before an approved question",
    seen_in: "described; PadN is a known place",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V6, pieces.of(200), |packet, piece| {
            // The first is filled in; of the second, the length is in eight bytes.
            let mut header = vec![0, 0, UNKNOWN_OPTION, option_length(piece, 0)];
            header.extend(piece);
            header.resize(header.len().next_multiple_of(8), 0);
            header[1] = u8::try_from(header.len() / 8 - 1).unwrap_or_default();
            packet.extensions.push((DESTINATION_OPTIONS, header));
            field.frame(packet)
        })
    },
    read: None,
};

pub(super) const ICMP: Channel = Channel {
    name: "dns-icmp",
    how: "errors to the resolver, as if nobody had waited for an answer that they quote",
    seen_in: "ICMP tunnels, where errors pass",
    aim: Aim::Stop,
    carry: icmp,
    read: None,
};

fn question(field: &Field) -> io::Result<Vec<u8>> {
    Ok(Message::ask(1, &wire(&field.exact()?.name), A).bytes())
}

fn option_length(piece: &[u8], header: usize) -> u8 {
    u8::try_from(piece.len() + header).unwrap_or_default()
}

/// An approved question for each piece, in a frame that is made of both.
fn send(
    field: &Field,
    family: Family,
    pieces: impl Iterator<Item = Vec<u8>>,
    frame: impl Fn(&mut Packet, &[u8]) -> Vec<u8>,
) -> io::Result<()> {
    let side = field.side(family)?;
    let (source, resolver) = ((side.local, SOURCE_PORT), (side.resolver()?, PORT));
    let question = question(field)?;
    let wire = field.wire()?;
    each(pieces, |piece| {
        let mut packet = Packet::udp(source, resolver, &question);
        wire.send(&frame(&mut packet, &piece))
    })
}

fn icmp(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(Family::V6)?;
    let (local, resolver) = (side.local, side.resolver()?);
    let wire = field.wire()?;
    let mut answer = Message::ask(1, &super::message::wire(&field.exact()?.name), A);
    answer.flags |= RESPONSE;
    each(pieces.of(BEHIND), |piece| {
        let message = [&answer.bytes()[..], &piece].concat();
        let quoted = Packet::udp((resolver, PORT), (local, SOURCE_PORT), &message).bytes();
        let (kind, code) = UNREACHABLE;
        let body = [&UNUSED[..], &quoted].concat();
        wire.send(&field.frame(&Packet::icmp(local, resolver, kind, code, &body)))
    })
}
