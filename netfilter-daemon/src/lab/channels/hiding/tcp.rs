//! Segments that carry data before there is a connection, or beside it.

use std::io;

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::Field,
        frame::{Packet, SYN},
        ledger::{Found, Pieces},
    },
    channels::plain::packets,
    probe::Family,
};

const URG_PSH_ACK: u8 = 0x38;

/// Ports at which only these channels knock.
const NUMBERS: u16 = 4601;
const TIMESTAMPS: u16 = 4602;
const RESERVED: u16 = 4603;

/// Behind Ethernet and IPv4.
const SEGMENT: usize = 34;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "syn-data",
        "data in the segments that ask for a connection (SYN)",
        "scanners and implants that never connect: SYNful Knock",
        |field, pieces| segments(field, pieces, SYN, &[]),
    ),
    Channel::stop(
        "tcp-fast-open",
        "data behind a cookie of TCP Fast Open, in the first segment",
        "curl --tcp-fastopen",
        // Maximum size; the cookie (RFC 7413 section 4.1.1), padded.
        |field, pieces| {
            let options = [2, 4, 5, 180, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
            segments(field, pieces, SYN, &options)
        },
    ),
    Channel::stop(
        "tcp-urgent",
        "urgent data of a connection that was never made",
        "covert_tcp and its kin",
        |field, pieces| segments(field, pieces, URG_PSH_ACK, &[]),
    ),
    Channel {
        name: "tcp-numbers",
        how: "sequence numbers and what is acknowledged, eight bytes of each SYN",
        seen_in: "covert_tcp (Rowland 1997), NUSHU",
        aim: Aim::Stop,
        carry: |field, pieces| {
            numbered(field, pieces, (NUMBERS, 8), |bytes, segment| {
                segment[4..12].copy_from_slice(bytes);
            })
        },
        read: Some(|frame| {
            let segment = sent(frame, NUMBERS)?;
            part(segment, segment.get(4..12)?)
        }),
    },
    Channel {
        name: "tcp-timestamps",
        how: "the timestamps option, eight bytes of each SYN",
        seen_in: "Giffin et al. 2002, Covert Messaging Through TCP Timestamps",
        aim: Aim::Stop,
        carry: |field, pieces| {
            numbered(field, pieces, (TIMESTAMPS, 8), |bytes, segment| {
                segment[12] = 0x80;
                segment.extend([1, 1, 8, 10]);
                segment.extend(bytes);
            })
        },
        read: Some(|frame| {
            let segment = sent(frame, TIMESTAMPS)?;
            part(segment, segment.get(24..32)?)
        }),
    },
    Channel {
        name: "tcp-reserved",
        how: "the reserved bits, the window and the urgent pointer, four bytes of each SYN",
        seen_in: "Murdoch and Lewis 2005, Embedding Covert Channels into TCP/IP",
        aim: Aim::Stop,
        carry: |field, pieces| {
            numbered(field, pieces, (RESERVED, 4), |bytes, segment| {
                segment[12] = 0x50 | bytes[0] >> 4;
                segment[14..16].copy_from_slice(&[bytes[0] & 15, bytes[1]]);
                segment[18..20].copy_from_slice(&bytes[2..4]);
            })
        },
        read: Some(|frame| {
            let segment = sent(frame, RESERVED)?;
            let first = segment.get(12)? << 4 | segment.get(14)? & 15;
            part(segment, &[first, segment[15], segment[18], segment[19]])
        }),
    },
];

fn segments(field: &Field, pieces: &Pieces, flags: u8, options: &[u8]) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    packets(field, pieces, |piece| {
        let ends = ((side.local, 40_006), (side.denied, 443));
        let mut packet = Packet::tcp(ends.0, ends.1, (7, 0), flags, &[options, piece].concat());
        let words = 5 + u8::try_from(options.len() / 4).unwrap_or_default();
        packet.payload[12] = words << 4;
        if flags == URG_PSH_ACK {
            packet.payload[18..20].copy_from_slice(&[0xff, 0xff]);
        }
        packet.checked(16)
    })
}

/// A SYN for every few bytes, whose place is in the source port.
fn numbered(
    field: &Field,
    pieces: &Pieces,
    (port, size): (u16, usize),
    fill: impl Fn(&[u8], &mut Vec<u8>),
) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let wire = field.wire()?;
    each((0..).zip(pieces.parts(size)), |(index, (_, bytes))| {
        let ends = ((side.local, index), (side.denied, port));
        let mut packet = Packet::tcp(ends.0, ends.1, (0, 0), SYN, &[]);
        fill(bytes, &mut packet.payload);
        wire.send(&field.frame(&packet.checked(16)))
    })
}

/// A SYN to this port.
fn sent(frame: &[u8], port: u16) -> Option<&[u8]> {
    let ours = frame.get(12..15)? == [8, 0, 0x45] && frame.get(23) == Some(&6);
    let segment = frame.get(SEGMENT..)?;
    (ours && segment.get(2..4)? == port.to_be_bytes() && segment.get(13) == Some(&SYN))
        .then_some(segment)
}

fn part(segment: &[u8], bytes: &[u8]) -> Option<Found> {
    let index = usize::from(u16::from_be_bytes([segment[0], segment[1]]));
    Some(Found::Part {
        offset: index * bytes.len(),
        bytes: bytes.to_vec(),
    })
}
