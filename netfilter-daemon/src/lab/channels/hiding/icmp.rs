//! ICMP that nobody asked for.

use std::{io, net::IpAddr};

use crate::lab::{
    battery::{Channel, each, field::Field, frame::Packet, ledger::Pieces},
    channels::plain::packets,
    probe::Family,
};

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "icmp-unreachable",
        "errors that quote packets which never came (ICMP type 3)",
        "Loki's successors; what firewalls let out for path MTU discovery",
        |field, pieces| errors(field, Family::V4, (3, 4), pieces),
    ),
    Channel::stop(
        "icmp6-too-big",
        "errors that quote packets which never came (ICMPv6 type 2)",
        "what RFC 4890 says must not be dropped",
        |field, pieces| errors(field, Family::V6, (2, 0), pieces),
    ),
    Channel::stop(
        "icmp-time-exceeded",
        "errors of routers that quote packets which never came (ICMP type 11)",
        "what traceroute needs",
        |field, pieces| errors(field, Family::V4, (11, 0), pieces),
    ),
    Channel::stop(
        "icmp-reply",
        "replies to pings that nobody sent (ICMP type 0)",
        "Loki (Phrack 49), icmpsh",
        |field, pieces| replies(field, Family::V4, 0, pieces),
    ),
    Channel::stop(
        "icmp6-reply",
        "replies to pings that nobody sent (ICMPv6 type 129)",
        "ICMP tunnels that were moved to IPv6",
        |field, pieces| replies(field, Family::V6, 129, pieces),
    ),
    Channel::stop(
        "icmp-types",
        "ICMP of every other type",
        "scapy: timestamps, address masks, extended echoes",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            let wire = field.wire()?;
            let kinds = (1..=u8::MAX).filter(|kind| ![3, 8, 11].contains(kind));
            each(kinds.cycle().zip(pieces.of(256)), |(kind, piece)| {
                let packet = Packet::icmp(side.local, side.denied, kind, 0, &piece);
                wire.send(&field.frame(&packet))
            })
        },
    ),
];

/// About a datagram that a denied address is said to have sent.
fn errors(
    field: &Field,
    family: Family,
    (kind, code): (u8, u8),
    pieces: &Pieces,
) -> io::Result<()> {
    let side = field.side(family)?;
    packets(field, pieces, |piece| {
        let quoted = quote(side.denied, side.local, piece);
        let body = [&[0, 0, 5, 0], &quoted[..]].concat();
        Packet::icmp(side.local, side.denied, kind, code, &body)
    })
}

fn quote(from: IpAddr, to: IpAddr, piece: &[u8]) -> Vec<u8> {
    Packet::udp((from, 443), (to, 40_007), piece).bytes()
}

fn replies(field: &Field, family: Family, kind: u8, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(family)?;
    packets(field, pieces, |piece| {
        let body = [&[0, 7, 0, 1], piece].concat();
        Packet::icmp(side.local, side.denied, kind, 0, &body)
    })
}
