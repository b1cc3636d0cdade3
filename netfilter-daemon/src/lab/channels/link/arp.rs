//! ARP, which every machine needs, and what can hide in it.

use std::io;

use crate::lab::{
    battery::{
        Aim, Channel,
        field::{Field, missing},
    },
    channels::raw::{self, PART, PIECE},
    probe::Family,
};

const ETHERTYPE: u16 = 0x0806;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Of the InARP of RFC 2390.
const INVERSE_REQUEST: u16 = 8;

/// The shortest frame that Ethernet has, without its checksum.
const SHORTEST: usize = 60;

const BROADCAST: [u8; 6] = [0xff; 6];

/// How the hardware addresses begin that carry data. The channel's own byte is next.
const CARRIER: u8 = 0x02;
const BY_SENDER: u8 = 0xa1;
const BY_TARGET: u8 = 0xa2;
const BY_ADDRESSES: u8 = 0xa3;
const BY_PADDING: u8 = 0xa4;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "arp-trailer",
        "data behind an exact ARP request",
        "scapy, arp-data tunnels",
        |field, pieces| {
            let request = packet(field, REQUEST)?.frame(field);
            raw::pieces(field, pieces, PIECE, |piece| [&request, piece].concat())
        },
    ),
    Channel {
        name: "arp-padding",
        how: "data as the padding that makes a frame of an ARP request",
        seen_in: "Etherleak (Arkin and Anderson 2003), Wolf 1989",
        aim: Aim::Stop,
        carry: |field, pieces| {
            let request = packet(field, REQUEST)?;
            raw::parts(field, pieces, |number, bytes: [u8; PART]| {
                let mut frame = request.frame(field);
                let head = [CARRIER, BY_PADDING];
                frame.extend([&head[..], &number.to_be_bytes(), &bytes].concat());
                frame.resize(SHORTEST, 0);
                frame
            })
        },
        read: Some(|frame| {
            let mine = is_arp(frame) && frame.get(42..44)? == [CARRIER, BY_PADDING];
            mine.then(|| raw::part::<PART>([frame[44], frame[45]], &frame[46..]))?
        }),
    },
    Channel {
        name: "arp-sender",
        how: "announcements of neighbours whose hardware addresses are data",
        seen_in: "arp covert channels (Dua 2018), arpspoof, bettercap",
        aim: Aim::Stop,
        carry: |field, pieces| {
            let announcement = Packet {
                to: BROADCAST,
                ..packet(field, REPLY)?
            };
            raw::parts(field, pieces, |number, bytes: [u8; PART]| {
                let mut packet = announcement.clone();
                packet.sender = carrier(BY_SENDER, bytes);
                packet.target_address[2..].copy_from_slice(&number.to_be_bytes());
                packet.frame(field)
            })
        },
        read: Some(|frame| {
            let mine = is_arp(frame) && frame[22..24] == [CARRIER, BY_SENDER];
            mine.then(|| raw::part::<PART>([frame[40], frame[41]], &frame[24..28]))?
        }),
    },
    Channel {
        name: "arp-target",
        how: "requests that say what nobody knows yet, the hardware address that they ask for",
        seen_in: "arp covert channels (Dua 2018), scapy",
        aim: Aim::Stop,
        carry: |field, pieces| {
            let request = packet(field, REQUEST)?;
            raw::parts(field, pieces, |number, bytes: [u8; PART]| {
                let mut packet = request.clone();
                packet.target = carrier(BY_TARGET, bytes);
                packet.target_address[2..].copy_from_slice(&number.to_be_bytes());
                packet.frame(field)
            })
        },
        read: Some(|frame| {
            let mine = is_arp(frame) && frame[32..34] == [CARRIER, BY_TARGET];
            mine.then(|| raw::part::<PART>([frame[40], frame[41]], &frame[34..38]))?
        }),
    },
    Channel::stop(
        "arp-operation",
        "operations that are neither request nor reply",
        "InARP of RFC 2390, scapy",
        |field, pieces| {
            let inverse = packet(field, INVERSE_REQUEST)?.frame(field);
            raw::pieces(field, pieces, PIECE, |piece| [&inverse, piece].concat())
        },
    ),
    Channel::stop(
        "arp-long-addresses",
        "addresses in ARP that are 200 bytes long",
        "RFC 826 allows it; scapy",
        |field, pieces| {
            raw::pieces(field, pieces, 200, |piece| {
                let mut packet = vec![0, 1, 8, 0, 200, 4, 0, 1];
                packet.extend(raw::padded(piece, 200));
                packet.resize(8 + 2 * 204, 0);
                field.ethernet(ETHERTYPE, &packet)
            })
        },
    ),
    Channel::stop(
        "arp-protocol",
        "ARP for another protocol than IPv4",
        "Chaosnet, scapy",
        |field, pieces| {
            raw::pieces(field, pieces, PIECE, |piece| {
                field.ethernet(ETHERTYPE, &[&[0, 1, 8, 4, 6, 4, 0, 1], piece].concat())
            })
        },
    ),
    Channel {
        name: "arp-addresses",
        how: "requests for made-up neighbours by a made-up sender, whose addresses are data",
        seen_in: "arp covert channels (Ji 2010, Dua 2018), scapy",
        aim: Aim::OutOfScope {
            why: "any address may be a neighbour's, and one that this machine, or one behind it, has; \
                  only who is on the same link hears the question",
            remedy: "keep CAP_NET_RAW from what you do not trust; in clouds nobody else is on the link; \
                     elsewhere use private VLANs, or inspection of ARP at the switch",
        },
        carry: |field, pieces| {
            let request = packet(field, REQUEST)?;
            raw::parts(field, pieces, |number, bytes: [u8; PART]| {
                let mut packet = request.clone();
                packet.from = carrier(BY_ADDRESSES, [0; PART]);
                packet.from[4..].copy_from_slice(&number.to_be_bytes());
                packet.sender = packet.from;
                packet.target_address = bytes;
                packet.frame(field)
            })
        },
        read: Some(|frame| {
            let mine = is_arp(frame) && frame[22..26] == [CARRIER, BY_ADDRESSES, 0, 0];
            mine.then(|| raw::part::<PART>([frame[26], frame[27]], &frame[38..42]))?
        }),
    },
];

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone)]
struct Packet {
    to: [u8; 6],
    from: [u8; 6],
    operation: u16,
    sender: [u8; 6],
    sender_address: [u8; 4],
    target: [u8; 6],
    target_address: [u8; 4],
}

/// As an honest sender has it.
fn packet(field: &Field, operation: u16) -> io::Result<Packet> {
    let std::net::IpAddr::V4(local) = field.side(Family::V4)?.local else {
        return Err(missing("no IPv4 here"));
    };
    let [a, b, c, _] = local.octets();
    Ok(Packet {
        to: BROADCAST,
        from: field.hardware,
        operation,
        sender: field.hardware,
        sender_address: local.octets(),
        target: [0; 6],
        // Nobody has it.
        target_address: [a, b, c, 0xfe],
    })
}

impl Packet {
    fn frame(&self, field: &Field) -> Vec<u8> {
        let packet = [
            &[0, 1, 8, 0, 6, 4][..],
            &self.operation.to_be_bytes(),
            &self.sender,
            &self.sender_address,
            &self.target,
            &self.target_address,
        ];
        let mut frame = field.ethernet(ETHERTYPE, &packet.concat());
        frame[..6].copy_from_slice(&self.to);
        frame[6..12].copy_from_slice(&self.from);
        frame
    }
}

/// A hardware address that carries a part.
fn carrier(channel: u8, [a, b, c, d]: [u8; PART]) -> [u8; 6] {
    [CARRIER, channel, a, b, c, d]
}

fn is_arp(frame: &[u8]) -> bool {
    frame.len() >= 42 && frame[12..20] == [8, 6, 0, 1, 8, 0, 6, 4]
}
