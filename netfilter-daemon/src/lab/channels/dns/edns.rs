//! EDNS (RFC 6891) of approved questions. It ends at the resolver, but whoever
//! watches the way there reads it.

use std::io;

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::Field,
        ledger::{Found, SECRET},
    },
    probe::Family,
};

use super::{
    message::{A, Arrived, Message, number, wire},
    names::{resolver, resolver_from},
};

const OPTION_COOKIE: u16 = 10;
const OPTION_PADDING: u16 = 12;
/// Of those for local use (RFC 6891 section 9).
const OPTION_LOCAL: u16 = 65_001;

/// As much as no option in use is long.
const OPTION: usize = 200;

/// The cookie of a client and of a server (RFC 7873 section 4).
const COOKIES: usize = 8 + 32;

/// No other channel sends from it.
const RESERVED_PORT: u16 = 61_442;

/// A flag of EDNS that nobody has a use for. It is always set: no question is approved
/// by chance.
const NOBODY: u8 = 0x20;

/// In each question: AA, TC, RA, CD and RCODE; the high half of an RCODE; the version;
/// half of EDNS's flags; the size of answers.
const BYTES: usize = 6;

pub(super) const UNKNOWN: Channel = Channel {
    name: "dns-edns-option",
    how: "an EDNS option that nobody knows, in an approved question",
    seen_in: "described; identities of clients travel so to filtering resolvers",
    aim: Aim::Stop,
    carry: |field, pieces| option(field, Family::V4, pieces.of(OPTION), OPTION_LOCAL),
    read: None,
};

pub(super) const COOKIE: Channel = Channel {
    name: "dns-cookie",
    how: "the cookies of client and server in an approved question",
    seen_in: "dig and BIND send them; described as a channel",
    aim: Aim::Stop,
    carry: |field, pieces| option(field, Family::V6, pieces.of(COOKIES), OPTION_COOKIE),
    read: None,
};

pub(super) const PADDING: Channel = Channel {
    name: "dns-edns-padding",
    how: "padding that is not empty, in an approved question",
    seen_in: "described; real padding is zero (RFC 7830)",
    aim: Aim::Stop,
    carry: |field, pieces| option(field, Family::V4, pieces.of(OPTION), OPTION_PADDING),
    read: None,
};

pub(super) const RESERVED: Channel = Channel {
    name: "dns-reserved",
    how: "bits of an approved question that only answers have or nobody, its response code, EDNS's version, size and flags",
    seen_in: "described for covert channels in headers; no tool is known",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let approved = wire(&field.exact()?.name);
        let resolver = resolver_from(field, Family::V4, RESERVED_PORT)?;
        each((0..).zip(pieces.parts(BYTES)), |(id, (_, part))| {
            // The last part is shorter.
            let mut bytes = [0; BYTES];
            bytes[..part.len()].copy_from_slice(part);
            let [byte, code, version, flags, rest @ ..] = bytes;
            let fields = u32::from_be_bytes([code, version, NOBODY, flags]);
            let mut message = Message::ask(id, &approved, A).extended(fields, None);
            // The size of answers, behind the root and the type.
            message.additionals[0][3..5].copy_from_slice(&rest);
            let byte = u16::from(byte);
            message.flags |= (byte & 0xc0) << 3 | (byte & 0x20) << 2 | byte & 0x1f;
            resolver.send(&message.bytes()).map(drop)
        })
    },
    read: Some(|frame| {
        let message = Arrived::datagram(frame, RESERVED_PORT)?;
        let flags = number(message, 2)?;
        let [_, byte] = (flags >> 3 & 0xc0 | flags >> 2 & 0x20 | flags & 0x1f).to_be_bytes();
        let [size @ .., code, version, _, last, _, _] = message.last_chunk::<8>()?;
        let offset = usize::from(number(message, 0)?) * BYTES;
        let mut bytes = [&[byte, *code, *version, *last], &size[..]].concat();
        bytes.truncate(SECRET.checked_sub(offset)?);
        Some(Found::Part { offset, bytes })
    }),
};

fn option(
    field: &Field,
    family: Family,
    pieces: impl Iterator<Item = Vec<u8>>,
    code: u16,
) -> io::Result<()> {
    let approved = wire(&field.exact()?.name);
    let resolver = resolver(field, family)?;
    each((0..).zip(pieces), |(id, piece)| {
        let message = Message::ask(id, &approved, A).extended(0, Some((code, &piece)));
        resolver.send(&message.bytes()).map(drop)
    })
}
