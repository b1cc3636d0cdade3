//! Numbers of approved questions that the one who asks draws at random.

use std::io;

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::{Field, missing},
        frame::Packet,
        ledger::{Found, Pieces},
    },
    probe::Family,
};

use super::{
    message::{A, AAAA, Arrived, Message, PORT, asked, number, wire},
    names::resolver_from,
};

/// The high half of the ports that carry the low one: above those that systems give out.
const PORTS: u16 = 0xf1;

/// No other channel sends from it.
const CASE_PORT: u16 = 61_444;

/// Three bytes: the id of the question, and half of its port.
const BYTES: usize = 3;

const BITS: usize = 8;

/// It is few bytes in each question, so only a part of the secret goes.
const QUESTIONS: usize = 2000;

pub(super) const ID: Channel = Channel {
    name: "dns-id",
    how: "the id and the source port of approved questions; the packet's id is the position",
    seen_in: "described for covert channels in headers; no tool is known",
    aim: Aim::OutOfScope {
        why: "they have to be random (RFC 5452), and end at the resolver",
        remedy: "a resolver of one's own on the machine or beside it, which draws its own: nobody else sees them then",
    },
    carry: ids,
    read: Some(|frame| {
        let arrived = Arrived::read(frame).filter(|arrived| !arrived.is_tcp)?;
        let [high, low] = arrived.source_port.to_be_bytes();
        let [first, second] = number(arrived.data, 0)?.to_be_bytes();
        if u16::from(high) != PORTS {
            return None;
        }
        Some(Found::Part {
            offset: usize::from(arrived.id) * BYTES,
            bytes: vec![first, second, low],
        })
    }),
};

pub(super) const CASE: Channel = Channel {
    name: "dns-case",
    how: "capital and small letters of an approved name; the question's id is the position",
    seen_in: "described; resolvers that guard against forged answers draw them (0x20)",
    aim: Aim::OutOfScope {
        why: "they may be random, and some resolvers pass them on to the servers of the name",
        remedy: "a resolver that asks in letters of its own, as unbound with `use-caps-for-id`; then they end there",
    },
    carry: cases,
    read: Some(|frame| {
        let message = Arrived::datagram(frame, CASE_PORT)?;
        let letters: Vec<_> = asked(message)
            .flatten()
            .filter(|byte| byte.is_ascii_alphabetic())
            .collect();
        let bytes = letters.chunks_exact(BITS).map(|letters| {
            let bits = letters.iter().map(|letter| letter.is_ascii_uppercase());
            bits.fold(0, |byte, bit| byte << 1 | u8::from(bit))
        });
        let bytes: Vec<u8> = bytes.collect();
        let offset = usize::from(number(message, 0)?) * bytes.len();
        Some(Found::Part { offset, bytes })
    }),
};

fn ids(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let approved = wire(&field.exact()?.name);
    let resolver = (side.resolver()?, PORT);
    let wire = field.wire()?;
    let parts = pieces.parts(BYTES).take(QUESTIONS);
    each((0..).zip(parts), |(position, (_, part))| {
        let mut bytes = [0; BYTES];
        bytes[..part.len()].copy_from_slice(part);
        let [first, second, low] = bytes;
        let message = Message::ask(u16::from_be_bytes([first, second]), &approved, AAAA);
        let source = (side.local, PORTS << 8 | u16::from(low));
        let mut packet = Packet::udp(source, resolver, &message.bytes());
        packet.id = position;
        wire.send(&field.frame(&packet))
    })
}

fn cases(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let approved = wire(&field.exact()?.name);
    // The lengths of labels are below all letters.
    let letters = approved
        .iter()
        .filter(|byte| byte.is_ascii_alphabetic())
        .count();
    let bytes = letters / BITS;
    if bytes == 0 {
        return Err(missing("the policy allows no name with eight letters"));
    }
    let resolver = resolver_from(field, Family::V6, CASE_PORT)?;
    let parts = pieces.parts(bytes).take(QUESTIONS);
    each((0..).zip(parts), |(id, (_, part))| {
        let mut bits = part
            .iter()
            .flat_map(|byte| (0..BITS).rev().map(move |bit| byte >> bit & 1 == 1));
        let mut name = approved.clone();
        for letter in name.iter_mut().filter(|byte| byte.is_ascii_alphabetic()) {
            if bits.next() == Some(true) {
                letter.make_ascii_uppercase();
            }
        }
        let message = Message::ask(id, &name, A);
        resolver.send(&message.bytes()).map(drop)
    })
}
