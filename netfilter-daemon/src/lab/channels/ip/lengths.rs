//! Lengths that lie, bytes that no length counts, and other fields of IP headers.

use std::io;

use crate::lab::{
    battery::{
        Aim, Channel,
        field::{Field, missing},
        frame::{IPV4, IPV6, Packet},
        ledger::{Found, Pieces},
    },
    channels::raw::{self, PART, PIECE, approved, approved_from, denied},
    probe::Family,
};

/// Where the IP header begins.
const NETWORK: usize = 14;

/// The shortest frame that Ethernet has, without its checksum.
const SHORTEST: usize = 60;

/// The source port by which the sink knows padded segments.
const PADDED_PORT: u16 = 40_060;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "trailer",
        "data in the frame behind an IPv4 packet to an approved address",
        "RFC 893, packet capture calls it a trailer; PRP, scapy Padding",
        |field, pieces| trailer(field, Family::V4, pieces),
    ),
    Channel::stop(
        "trailer6",
        "data in the frame behind an IPv6 packet to an approved address",
        "RFC 4942, scapy Padding",
        |field, pieces| trailer(field, Family::V6, pieces),
    ),
    Channel {
        name: "trailer-padding",
        how: "data as the padding that makes a short packet a frame",
        seen_in: "Etherleak (Arkin and Anderson 2003), Wolf 1989",
        aim: Aim::Stop,
        carry: padding,
        read: Some(read_padding),
    },
    Channel::stop(
        "length-zero",
        "an IPv4 total length of zero, which some stacks take for the frame's",
        "scapy, segmentation offload",
        |field, pieces| changed(field, Family::V4, pieces, &[(2, 0), (3, 0)]),
    ),
    Channel::stop(
        "length-long",
        "an IPv4 total length beyond the frame",
        "scapy, Ptacek and Newsham 1998",
        |field, pieces| changed(field, Family::V4, pieces, &[(2, 0x7f)]),
    ),
    Channel::stop(
        "length6-zero",
        "an IPv6 payload length of zero without a jumbogram",
        "RFC 2675, scapy",
        |field, pieces| changed(field, Family::V6, pieces, &[(4, 0), (5, 0)]),
    ),
    Channel::stop(
        "length6-long",
        "an IPv6 payload length beyond the frame",
        "scapy",
        |field, pieces| changed(field, Family::V6, pieces, &[(4, 0x7f)]),
    ),
    Channel::stop(
        "header-length-short",
        "an IPv4 header length of 16, so that ports are read where there are none",
        "Ptacek and Newsham 1998, scapy",
        |field, pieces| changed(field, Family::V4, pieces, &[(0, 0x44)]),
    ),
    Channel::stop(
        "header-length-long",
        "an IPv4 header length that makes options of the segment and its data",
        "Ptacek and Newsham 1998, scapy",
        |field, pieces| changed(field, Family::V4, pieces, &[(0, 0x4f)]),
    ),
    Channel::stop(
        "udp-surplus",
        "bytes between the end of a permitted question and the end of its packet",
        "RFC 9868, scapy",
        |field, pieces| question(field, pieces, None),
    ),
    Channel::stop(
        "udp-length-zero",
        "a UDP length of zero",
        "RFC 2675, scapy",
        |field, pieces| question(field, pieces, Some(0)),
    ),
    Channel::stop(
        "version-6-as-4",
        "an IPv6 packet that its frame calls IPv4",
        "scapy",
        |field, pieces| called(field, Family::V6, IPV4, pieces),
    ),
    Channel::stop(
        "version-4-as-6",
        "an IPv4 packet that its frame calls IPv6",
        "scapy",
        |field, pieces| called(field, Family::V4, IPV6, pieces),
    ),
    Channel::stop(
        "ttl-0",
        "packets that no router would pass on, for a neighbour",
        "scapy, hping3 --ttl 0",
        |field, pieces| living(field, pieces, 0),
    ),
    Channel::stop(
        "ttl-1",
        "packets that end at the first router, which reports them to nobody",
        "traceroute, Zander 2007",
        |field, pieces| living(field, pieces, 1),
    ),
    Channel::stop(
        "evil-bit",
        "the reserved flag of IPv4",
        "RFC 3514, scapy",
        |field, pieces| changed(field, Family::V4, pieces, &[(6, 0x80)]),
    ),
    Channel::stop(
        "checksum",
        "packets with a wrong checksum, which only a listener takes",
        "hping3 --badcksum, nmap --badsum",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            raw::pieces(field, pieces, PIECE, |piece| {
                let mut frame = field.frame(&denied(side, piece));
                frame[NETWORK + 10] ^= 0xff;
                frame
            })
        },
    ),
    Channel::stop(
        "protocol-unknown",
        "an IP protocol that nobody has assigned, to an approved address",
        "RFC 3692, scapy",
        |field, pieces| {
            let harmless = approved(field.side(Family::V4)?, &[])?;
            raw::pieces(field, pieces, PIECE, |piece| {
                let (protocol, payload) = (253, piece.to_vec());
                field.frame(&Packet {
                    protocol,
                    payload,
                    ..harmless.clone()
                })
            })
        },
    ),
    Channel::stop(
        "ipv4-mapped",
        "an IPv6 packet to the IPv4-mapped form of an approved address",
        "RFC 4942 section 2.2, draft-itojun-v6ops-v4mapped-harmful",
        |field, pieces| {
            let (mut side, ipv4) = (field.side(Family::V6)?.clone(), field.side(Family::V4)?);
            side.approved = ipv4.approved.map(|(address, knock)| match address {
                std::net::IpAddr::V4(address) => (address.to_ipv6_mapped().into(), knock),
                mapped @ std::net::IpAddr::V6(_) => (mapped, knock),
            });
            let harmless = approved(&side, &[])?;
            raw::pieces(field, pieces, PIECE, |piece| {
                let mut packet = harmless.clone();
                packet.payload.extend(piece);
                field.frame(&packet.checked(16))
            })
        },
    ),
];

fn trailer(field: &Field, family: Family, pieces: &Pieces) -> io::Result<()> {
    let harmless = field.frame(&approved(field.side(family)?, &[])?);
    raw::pieces(field, pieces, PIECE, |piece| [&harmless, piece].concat())
}

fn padding(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let harmless = approved_from(field.side(Family::V4)?, PADDED_PORT, &[])?;
    raw::parts(field, pieces, |number, bytes: [u8; PART]| {
        let id = number.into();
        let mut frame = field.frame(&Packet {
            id,
            ..harmless.clone()
        });
        frame.extend(bytes);
        frame.resize(SHORTEST, 0);
        frame
    })
}

fn read_padding(frame: &[u8]) -> Option<Found> {
    let mine = raw::is_segment(frame, PADDED_PORT) && frame.len() == SHORTEST;
    mine.then(|| raw::part::<PART>([frame[18], frame[19]], &frame[54..]))?
}

/// Segments with data to what is approved, with these bytes of the IP header.
fn changed(
    field: &Field,
    family: Family,
    pieces: &Pieces,
    bytes: &[(usize, u8)],
) -> io::Result<()> {
    let side = field.side(family)?;
    let harmless = approved(side, &[])?;
    raw::pieces(field, pieces, PIECE, |piece| {
        let mut packet = harmless.clone();
        packet.payload.extend(piece);
        let mut frame = field.frame(&packet.checked(16));
        for (at, byte) in bytes {
            frame[NETWORK + at] = *byte;
        }
        frame
    })
}

/// A question for a permitted name, a length of UDP that ends with it or is this one,
/// and a piece behind it.
fn question(field: &Field, pieces: &Pieces, length: Option<u16>) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let name = field.names.iter().find(|name| !name.wildcard);
    let name = name.ok_or_else(|| missing("the policy allows no exact name"))?;
    let mut message = vec![0x55, 0xaa, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.name.split('.') {
        message.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    let resolver = (side.resolver()?, 53);
    let mut harmless = Packet::udp((side.local, 40_000), resolver, &message);
    if let Some(length) = length {
        harmless.payload[4..6].copy_from_slice(&length.to_be_bytes());
    }
    // None (RFC 768): it would be another for every reading of the length.
    harmless.payload[6..8].fill(0);
    raw::pieces(field, pieces, PIECE, |piece| {
        let mut packet = harmless.clone();
        packet.payload.extend(piece);
        field.frame(&packet)
    })
}

fn called(field: &Field, family: Family, ethertype: u16, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(family)?;
    raw::pieces(field, pieces, PIECE, |piece| {
        field.ethernet(ethertype, &denied(side, piece).bytes())
    })
}

fn living(field: &Field, pieces: &Pieces, hops: u8) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    raw::pieces(field, pieces, PIECE, |piece| {
        field.frame(&Packet {
            hops,
            ..denied(side, piece)
        })
    })
}
