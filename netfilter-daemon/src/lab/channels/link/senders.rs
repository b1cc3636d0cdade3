//! Senders and receivers that frames only claim to have.

use std::{io, net::IpAddr};

use crate::lab::{
    battery::{
        Aim, Channel,
        field::{Field, Side},
        frame::{Packet, SYN},
        ledger::{Found, Pieces},
    },
    channels::raw::{self, PART, PIECE, approved, approved_from, denied, door},
    probe::Family,
};

/// The source ports by which the sink knows them.
const BY_HARDWARE: u16 = 40_081;
const BY_VLAN: u16 = 40_082;
/// Behind it, a port for each part.
const BY_BOUNCE: u16 = 45_000;

const VLAN: u16 = 0x8100;

/// Nobody on the link has it.
const ACCOMPLICE: [u8; 6] = [0x02, 0xac, 0xc0, 0, 0, 0x1c];

const RAW_SOCKETS: &str = "keep CAP_NET_RAW from what you do not trust; in clouds the virtual \
                           switch looks at nothing but the machine's own interface; elsewhere use \
                           port security at the switch";

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "spoofed-source",
        "packets from somebody else's address to one that no rule allows",
        "hping3 --spoof, nmap -S, Rowland's covert_tcp",
        |field, pieces| spoofed(field, Family::V4, pieces),
    ),
    Channel::stop(
        "spoofed-source6",
        "the same over IPv6",
        "THC-IPv6, scapy",
        |field, pieces| spoofed(field, Family::V6, pieces),
    ),
    Channel::stop(
        "spoofed-loopback",
        "packets from the loopback address to one that no rule allows",
        "hping3 --spoof 127.0.0.1",
        |field, pieces| {
            let mut side = field.side(Family::V4)?.clone();
            side.local = [127, 0, 0, 1].into();
            raw::pieces(field, pieces, PIECE, |piece| {
                field.frame(&denied(&side, piece))
            })
        },
    ),
    Channel {
        name: "spoofed-source-bounce",
        how: "connections to an approved address that claim to come from the sink, whose numbers \
              the approved host repeats in its answers to it",
        seen_in: "Rowland's covert_tcp (1997), bounce mode",
        aim: Aim::OutOfScope {
            why: "packets are judged by where they go: which source addresses a machine, or one that \
                  it forwards for, may have changes with its routes and leases, also while no daemon runs",
            remedy: "networks drop what does not come from its sender's own address (BCP 38), and \
                     clouds do so for each machine; elsewhere do it at the next router, and keep \
                     CAP_NET_RAW from what you do not trust",
        },
        carry: bounce,
        read: Some(read_bounced),
    },
    Channel::stop(
        "hardware-broadcast",
        "packets to an address that no rule allows, in frames to everybody on the link",
        "scapy",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            raw::pieces(field, pieces, PIECE, |piece| {
                to(&[0xff; 6], field.frame(&denied(side, piece)))
            })
        },
    ),
    Channel {
        name: "hardware-destination",
        how: "packets to an approved address, in frames to a neighbour who is none of its routers",
        seen_in: "scapy, arpspoof",
        aim: Aim::OutOfScope {
            why: "which neighbour leads to an address is known to nobody but the kernel's routes, \
                  and those of what it bridges",
            remedy: RAW_SOCKETS,
        },
        carry: |field, pieces| {
            let side = field.side(Family::V4)?;
            let harmless = approved(side, &[])?;
            raw::pieces(field, pieces, PIECE, |piece| {
                let mut packet = harmless.clone();
                packet.payload.extend(piece);
                to(&ACCOMPLICE, field.frame(&packet.checked(16)))
            })
        },
        read: None,
    },
    Channel {
        name: "hardware-source",
        how: "the sender's hardware address as data, in frames to an approved address",
        seen_in: "macchanger, scapy",
        aim: Aim::OutOfScope {
            why: "machines behind a bridge have hardware addresses of their own, and only who is on \
                  the same link sees them",
            remedy: RAW_SOCKETS,
        },
        carry: |field, pieces| {
            let harmless = approved_from(field.side(Family::V4)?, BY_HARDWARE, &[])?;
            raw::parts(field, pieces, |number, bytes: [u8; PART]| {
                let id = number.into();
                let mut frame = field.frame(&Packet {
                    id,
                    ..harmless.clone()
                });
                frame[6] = 0x02;
                frame[8..12].copy_from_slice(&bytes);
                frame
            })
        },
        read: Some(|frame| {
            let mine = raw::is_segment(frame, BY_HARDWARE);
            mine.then(|| raw::part::<PART>([frame[18], frame[19]], &frame[8..12]))?
        }),
    },
    Channel {
        name: "vlan-number",
        how: "the number of an inner VLAN tag as data, before a packet to an approved address",
        seen_in: "double tagging (Yersinia, scapy)",
        aim: Aim::Stop,
        carry: |field, pieces| {
            let harmless = approved_from(field.side(Family::V4)?, BY_VLAN, &[])?;
            raw::parts(field, pieces, |number, [high, low]| {
                let id = number.into();
                let packet = Packet {
                    id,
                    ..harmless.clone()
                }
                .bytes();
                let tags = [0, 7, 0x81, 0, high, low, 8, 0];
                field.ethernet(VLAN, &[&tags[..], &packet].concat())
            })
        },
        // The kernel takes the outer tag off before the sink sees the frame.
        read: Some(|frame| {
            let behind = [frame.get(..12)?, frame.get(16..)?].concat();
            let mine = frame[12..14] == VLAN.to_be_bytes() && raw::is_segment(&behind, BY_VLAN);
            mine.then(|| raw::part::<2>([behind[18], behind[19]], &frame[14..16]))?
        }),
    },
];

fn to(hardware: &[u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(hardware);
    frame
}

/// From the neighbour of the address that is ours.
fn spoofed(field: &Field, family: Family, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(family)?;
    let local = match side.local {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() ^ 0x70).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() ^ 0x70).into()),
    };
    let side = Side {
        local,
        ..side.clone()
    };
    raw::pieces(field, pieces, PIECE, |piece| {
        field.frame(&denied(&side, piece))
    })
}

/// Over IPv6, as the lab's approved hosts take nothing from their own IPv4 addresses.
fn bounce(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(Family::V6)?;
    let to = door(side)?;
    raw::parts(field, pieces, |number, bytes: [u8; PART]| {
        let from = (side.denied, BY_BOUNCE + number);
        let sequence = (u32::from_be_bytes(bytes), 0);
        field.frame(&Packet::tcp(from, to, sequence, SYN, &[]))
    })
}

/// The approved host's answer, which acknowledges the number after the data.
fn read_bounced(frame: &[u8]) -> Option<Found> {
    const SYN_ACK: u8 = 0x12;
    if frame.len() < 74 || frame[12..15] != [0x86, 0xdd, 0x60] || frame[20] != 6 {
        return None;
    }
    let port = u16::from_be_bytes([frame[56], frame[57]]);
    let number = port.checked_sub(BY_BOUNCE)?;
    let acknowledged = u32::from_be_bytes(*frame[62..].first_chunk::<PART>()?);
    let bytes = acknowledged.wrapping_sub(1).to_be_bytes();
    (frame[67] == SYN_ACK).then(|| raw::part::<PART>(number.to_be_bytes(), &bytes))?
}
