//! Neighbour discovery: who has which address on the link.

use std::{io, net::Ipv6Addr};

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::Field,
        frame::{ICMPV6, Packet},
        ledger::{Found, Pieces},
    },
    probe::Family,
};

const NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The group of every target of these channels: their last three bytes are zero.
const SOLICITED: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
const TARGET: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x4d00, 0);

/// No such option is known.
const UNKNOWN: u8 = 200;
/// Of a target: what neither makes it an address nor its group.
const ROOM: usize = 12;
/// From where only `nd-targets` sends.
const OURS: u16 = 0x6e64;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "nd-options",
        "options of neighbour solicitations that nobody knows",
        "scapy; v00d00n3t (Murphy 2006, DEF CON 14)",
        solicitations,
    ),
    Channel::stop(
        "nd-advertisements",
        "options of neighbour advertisements that nobody asked for",
        "parasite6 of THC-IPv6",
        |field, pieces| {
            let body = [&[0x20, 0, 0, 0], &TARGET.octets()[..]].concat();
            with_option(field, pieces, (136, NODES), &body)
        },
    ),
    Channel::stop(
        "nd-routers",
        "options of router solicitations",
        "THC-IPv6",
        |field, pieces| with_option(field, pieces, (133, ROUTERS), &[0; 4]),
    ),
    Channel::stop(
        "nd-router-advertisements",
        "options of a router's advertisements, from what is no router",
        "fake_router6 of THC-IPv6, mitm6",
        |field, pieces| with_option(field, pieces, (134, NODES), &[0; 12]),
    ),
    Channel::stop(
        "nd-redirects",
        "packets that redirects quote",
        "redir6 of THC-IPv6",
        |field, pieces| with_option(field, pieces, (137, NODES), &[0; 36]),
    ),
    Channel {
        name: "nd-targets",
        how: "the addresses that neighbours are asked for",
        seen_in: "the same with ARP: arpspoof's kin, Ji et al. 2010",
        aim: Aim::OutOfScope {
            why: "who is on the link must be asked for by address, whichever that is; an \
                  interface gets 200 messages at once and 20 a second, so with all its fields \
                  about a kilobyte a second, and only to the link",
            remedy: "keep strangers off the link, and let the switch drop what is no address of \
                     the subnet (ND inspection, RFC 6620); cloud networks do both",
        },
        carry: targets,
        read: Some(read),
    },
];

fn solicitations(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let mut target = TARGET.octets();
    target[13..].fill(0);
    let body = [&[0; 4], &target[..]].concat();
    with_option(field, pieces, (135, SOLICITED), &body)
}

/// A message with a piece in an option, whose length is in units of eight bytes.
fn with_option(
    field: &Field,
    pieces: &Pieces,
    (kind, to): (u8, Ipv6Addr),
    body: &[u8],
) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.of(1022), |mut piece| {
        piece.resize((piece.len() + 2).next_multiple_of(8) - 2, 0);
        let units = u8::try_from((piece.len() + 2) / 8).unwrap_or_default();
        let body = [body, &[UNKNOWN, units], &piece].concat();
        wire.send(&message(field, link_local(7), (kind, to), &body)?)
    })
}

fn link_local(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, OURS, number)
}

fn message(
    field: &Field,
    from: Ipv6Addr,
    (kind, to): (u8, Ipv6Addr),
    body: &[u8],
) -> io::Result<Vec<u8>> {
    // Not where there is no IPv6.
    field.side(Family::V6)?;
    let mut packet = Packet::icmp(from.into(), to.into(), kind, 0, body);
    packet.hops = 255;
    let mut frame = field.frame(&packet);
    let [.., a, b, c, d] = to.octets();
    frame[..6].copy_from_slice(&[0x33, 0x33, a, b, c, d]);
    Ok(frame)
}

/// Solicitations for addresses of twelve bytes of the secret each; which ones, the sender's address says.
fn targets(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let wire = field.wire()?;
    each((0..).zip(pieces.parts(ROOM)), |(index, (_, bytes))| {
        let mut target = [0; 16];
        target[0] = 0x20;
        target[1..=bytes.len()].copy_from_slice(bytes);
        let body = [&[0; 4], &target[..]].concat();
        wire.send(&message(field, link_local(index), (135, SOLICITED), &body)?)
    })
}

fn read(frame: &[u8]) -> Option<Found> {
    let packet = frame.get(14..14 + 64)?;
    let from: [u8; 16] = packet[8..24].try_into().ok()?;
    let [.., ours, index] = Ipv6Addr::from(from).segments();
    let target = &packet[48..64];
    let is_ours = packet[6] == ICMPV6 && packet[40] == 135 && ours == OURS && target[0] == 0x20;
    let offset = usize::from(index) * ROOM;
    let bytes =
        target[1..=ROOM.min(crate::lab::battery::ledger::SECRET.checked_sub(offset)?)].to_vec();
    is_ours.then_some(Found::Part { offset, bytes })
}
