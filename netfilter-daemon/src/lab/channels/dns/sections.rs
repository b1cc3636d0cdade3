//! Messages that are no plain question: more sections, other operations, other bits.

use std::io;

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::{Field, ZONE},
    },
    probe::Family,
};

use super::{
    message::{
        A, IN, IN_NAME, LABEL, Message, RESPONSE, SOA, TXT, binary_name, name, question, read,
        record, wire,
    },
    names::resolver,
};

/// Opcodes (RFC 1996, RFC 2136), as they stand in the flags.
const OPCODE_NOTIFY: u16 = 4 << 11;
const OPCODE_UPDATE: u16 = 5 << 11;

/// Of the names of servers, not of the Internet's hosts.
const CHAOS: u16 = 3;

/// As much of a record's data as fits a datagram on every path.
const RECORD: usize = 1000;

pub(super) const TWO_QUESTIONS: Channel = Channel {
    name: "dns-two-questions",
    how: "a second question behind an approved one",
    seen_in: "nobody: servers refuse it (RFC 9619), filters may read the first only",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V4, pieces.of(LABEL), |message, piece| {
            message
                .questions
                .push(question(&binary_name(piece, ZONE), A, IN));
        })
    },
    read: None,
};

pub(super) const AUTHORITY: Channel = Channel {
    name: "dns-authority",
    how: "records in the authority section of an approved question",
    seen_in: "IXFR has one there (RFC 1995)",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V6, pieces.of(RECORD), |message, piece| {
            message.authorities.push(text(piece));
        })
    },
    read: None,
};

pub(super) const ADDITIONAL: Channel = Channel {
    name: "dns-additional",
    how: "a record behind EDNS in the additional section of an approved question",
    seen_in: "TSIG has one there (RFC 8945)",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V4, pieces.of(RECORD), |message, piece| {
            *message = message.clone().extended(0, None);
            message.additionals.push(text(piece));
        })
    },
    read: None,
};

pub(super) const ANSWER: Channel = Channel {
    name: "dns-response",
    how: "an answer for an approved name, sent to the resolver",
    seen_in: "the far half of a tunnel, turned around",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V4, pieces.of(RECORD), |message, piece| {
            message.flags |= RESPONSE;
            message.answers.push(text(piece));
        })
    },
    read: None,
};

pub(super) const UPDATE: Channel = Channel {
    name: "dns-update",
    how: "records that the resolver is asked to put into a zone",
    seen_in: "nsupdate",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V4, pieces.of(RECORD), |message, piece| {
            message.flags = OPCODE_UPDATE;
            message.questions = vec![question(&wire(ZONE), SOA, IN)];
            message.authorities.push(text(piece));
        })
    },
    read: None,
};

pub(super) const NOTIFY: Channel = Channel {
    name: "dns-notify",
    how: "a notice that an approved zone has changed, with the new record",
    seen_in: "dig +opcode=notify",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V6, pieces.of(RECORD), |message, piece| {
            message.flags = OPCODE_NOTIFY;
            message.answers.push(text(piece));
        })
    },
    read: None,
};

pub(super) const CLASS: Channel = Channel {
    name: "dns-class",
    how: "labels of another class than the Internet's",
    seen_in: "dig -c CH",
    aim: Aim::Stop,
    carry: |field, pieces| {
        send(field, Family::V4, pieces.of(IN_NAME), |message, piece| {
            let name = name(piece, "dns-class", ZONE);
            message.questions = vec![question(&name, TXT, CHAOS)];
        })
    },
    read: Some(|frame| read(frame, "dns-class")),
};

/// An approved question for each piece, changed so that it carries it.
fn send(
    field: &Field,
    family: Family,
    pieces: impl Iterator<Item = Vec<u8>>,
    change: impl Fn(&mut Message, &[u8]),
) -> io::Result<()> {
    let approved = wire(&field.exact()?.name);
    let resolver = resolver(field, family)?;
    each((0..).zip(pieces), |(id, piece)| {
        let mut message = Message::ask(id, &approved, A);
        change(&mut message, &piece);
        resolver.send(&message.bytes()).map(drop)
    })
}

fn text(piece: &[u8]) -> Vec<u8> {
    record(&wire(ZONE), TXT, IN, 0, piece)
}
