//! Tags and headers before IP.

use std::io;

use crate::lab::{
    battery::{
        Channel,
        field::{Field, Side},
        ledger::Pieces,
    },
    channels::raw::{self, PIECE, approved, denied, door},
    probe::Family,
};

const IPV4: [u8; 2] = [8, 0];
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const OLD_QINQ: u16 = 0x9100;
const MPLS: u16 = 0x8847;
const MPLS_GROUP: u16 = 0x8848;
const PPPOE_DISCOVERY: u16 = 0x8863;
const PPPOE: u16 = 0x8864;
const SERVICES: u16 = 0x894f;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "vlan",
        "a VLAN tag before packets to an address that no rule allows",
        "Yersinia, VLAN hopping",
        |field, pieces| before_denied(field, pieces, VLAN, &[&[0, 7], &IPV4]),
    ),
    Channel::stop(
        "vlan-priority",
        "a tag of no VLAN, only for its priority",
        "IEEE 802.1p, vconfig",
        |field, pieces| before_denied(field, pieces, VLAN, &[&[0xe0, 0], &IPV4]),
    ),
    Channel::stop(
        "vlan-raw",
        "a VLAN tag before frames of a type that is for experiments",
        "scapy",
        |field, pieces| before_data(field, pieces, VLAN, &[&[0, 7], &EXPERIMENTAL]),
    ),
    Channel::stop(
        "vlan-arp",
        "a VLAN tag before an ARP request, with data behind it",
        "scapy",
        |field, pieces| {
            let head = [0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
            before_data(field, pieces, VLAN, &[&head, &[0; 20]])
        },
    ),
    Channel::stop(
        "qinq",
        "two VLAN tags before packets to an address that no rule allows",
        "double tagging (Yersinia, scapy)",
        |field, pieces| before_denied(field, pieces, QINQ, &[&[0, 7, 0x81, 0, 0, 8], &IPV4]),
    ),
    Channel::stop(
        "qinq-raw",
        "two VLAN tags before frames of a type that is for experiments",
        "scapy",
        |field, pieces| {
            before_data(
                field,
                pieces,
                QINQ,
                &[&[0, 7, 0x81, 0, 0, 8], &EXPERIMENTAL],
            )
        },
    ),
    Channel::stop(
        "vlan-triple",
        "three VLAN tags before packets to an address that no rule allows",
        "scapy",
        |field, pieces| {
            let tags = [0, 7, 0x88, 0xa8, 0, 8, 0x81, 0, 0, 9];
            before_denied(field, pieces, QINQ, &[&tags, &IPV4])
        },
    ),
    Channel::stop(
        "vlan-old",
        "the tag that came before QinQ's",
        "0x9100, scapy",
        |field, pieces| before_denied(field, pieces, OLD_QINQ, &[&[0, 7], &IPV4]),
    ),
    Channel::stop(
        "mpls",
        "a label before packets to an address that no rule allows",
        "ip route encap mpls, scapy",
        |field, pieces| before_denied(field, pieces, MPLS, &[&[0, 1, 1, 64]]),
    ),
    Channel::stop(
        "mpls-group",
        "labels of a group before data",
        "RFC 5332, scapy",
        |field, pieces| before_data(field, pieces, MPLS_GROUP, &[&[0, 1, 0, 64, 0, 2, 1, 64]]),
    ),
    Channel::stop(
        "pppoe",
        "a session of PPP before packets to an address that no rule allows",
        "pppd, rp-pppoe",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            raw::pieces(field, pieces, PIECE, |piece| {
                let packet = denied(side, piece).bytes();
                let length = u16::try_from(packet.len() + 2).unwrap_or_default();
                let head = [&[0x11, 0, 0, 1], &length.to_be_bytes()[..], &[0, 0x21]];
                field.ethernet(PPPOE, &[&head.concat(), &packet[..]].concat())
            })
        },
    ),
    Channel::stop(
        "pppoe-discovery",
        "data in the search for an access concentrator",
        "rp-pppoe, scapy",
        |field, pieces| before_data(field, pieces, PPPOE_DISCOVERY, &[&[0x11, 9, 0, 0, 4, 0xb0]]),
    ),
    Channel::stop(
        "service-chain",
        "a network service header before packets to an address that no rule allows",
        "RFC 8300, Open vSwitch",
        |field, pieces| {
            before_denied(
                field,
                pieces,
                SERVICES,
                &[&[0x0f, 0xc2, 2, 1, 0, 0, 1, 255]],
            )
        },
    ),
    Channel::stop(
        "llc-ip",
        "packets to an address that no rule allows behind an LLC header",
        "IEEE 802.2 SAP 6, scapy",
        |field, pieces| llc(field, pieces, &[6, 6, 3]),
    ),
    Channel::stop(
        "snap-ip",
        "the same behind a SNAP header, as RFC 1042 has it",
        "RFC 1042, scapy",
        |field, pieces| llc(field, pieces, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
    ),
    Channel::stop(
        "vlan-port",
        "a VLAN tag before packets to an approved address, at a port that is not",
        "scapy",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            let (address, _) = door(side)?;
            let other = Side {
                denied: address,
                ..side.clone()
            };
            raw::pieces(field, pieces, PIECE, |piece| {
                let packet = denied(&other, piece).bytes();
                field.ethernet(VLAN, &[&[0, 7], &IPV4, &packet[..]].concat())
            })
        },
    ),
    Channel::stop(
        "vlan-trailer",
        "a VLAN tag before a packet to an approved address, with data behind it",
        "scapy",
        |field, pieces| {
            let packet = approved(field.side(Family::V4)?, &[])?.bytes();
            before_data(field, pieces, VLAN, &[&[0, 7], &IPV4, &packet])
        },
    ),
];

fn before_data(field: &Field, pieces: &Pieces, kind: u16, head: &[&[u8]]) -> io::Result<()> {
    let head = head.concat();
    raw::pieces(field, pieces, PIECE, |piece| {
        field.ethernet(kind, &[&head, piece].concat())
    })
}

fn before_denied(field: &Field, pieces: &Pieces, kind: u16, head: &[&[u8]]) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let head = head.concat();
    raw::pieces(field, pieces, PIECE, |piece| {
        field.ethernet(kind, &[&head, &denied(side, piece).bytes()[..]].concat())
    })
}

/// A frame of IEEE 802.3.
fn llc(field: &Field, pieces: &Pieces, head: &[u8]) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    raw::pieces(field, pieces, PIECE, |piece| {
        let payload = [head, &denied(side, piece).bytes()].concat();
        let length = u16::try_from(payload.len()).unwrap_or_default();
        field.ethernet(length, &payload)
    })
}
