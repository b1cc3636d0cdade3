//! Frames of other types than IP's.

use std::io;

use crate::lab::{
    battery::{Channel, field::Field, ledger::Pieces},
    channels::raw::{self, PIECE},
};

type Hardware = [u8; 6];

const BROADCAST: Hardware = [0xff; 6];
const LLDP_GROUP: Hardware = [1, 0x80, 0xc2, 0, 0, 0x0e];
const PORT_GROUP: Hardware = [1, 0x80, 0xc2, 0, 0, 3];
const PTP_GROUP: Hardware = [1, 0x1b, 0x19, 0, 0, 0];
const PAUSE_GROUP: Hardware = [1, 0x80, 0xc2, 0, 0, 1];
const SLOW_GROUP: Hardware = [1, 0x80, 0xc2, 0, 0, 2];
const BRIDGE_GROUP: Hardware = [1, 0x80, 0xc2, 0, 0, 0];
const CISCO_GROUP: Hardware = [1, 0, 0x0c, 0xcc, 0xcc, 0xcc];

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "ethertype-experimental",
        "frames of a type that is for experiments",
        "IEEE 802 local experimental 0x88b5, L2 shells, scapy",
        |field, pieces| raw_frames(field, pieces, 0x88b5, &[]),
    ),
    Channel::stop(
        "ethertype-unknown",
        "frames of a type that nobody has assigned",
        "scapy, raw sockets",
        |field, pieces| raw_frames(field, pieces, 0x9999, &[]),
    ),
    Channel::stop(
        "loopback-protocol",
        "frames of Ethernet's own loopback test",
        "DEC CTP, Cisco keepalives",
        |field, pieces| raw_frames(field, pieces, 0x9000, &[0, 0, 1, 0, 0, 0]),
    ),
    Channel::stop(
        "ipx",
        "frames of Novell's IPX",
        "IPX stacks",
        |field, pieces| raw_frames(field, pieces, 0x8137, &[0xff, 0xff]),
    ),
    Channel::stop(
        "appletalk",
        "frames of AppleTalk",
        "AppleTalk stacks",
        |field, pieces| raw_frames(field, pieces, 0x809b, &[0, 0]),
    ),
    Channel::stop(
        "ethercat",
        "frames of EtherCAT",
        "SOEM, IgH EtherCAT master",
        |field, pieces| raw_frames(field, pieces, 0x88a4, &[0, 0x10]),
    ),
    Channel::stop(
        "profinet",
        "frames of PROFINET",
        "p-net",
        |field, pieces| raw_frames(field, pieces, 0x8892, &[0xc0, 0]),
    ),
    Channel::stop(
        "ata-over-ethernet",
        "writes to a disk on the link",
        "vblade, the kernel's aoe",
        |field, pieces| raw_frames(field, pieces, 0x88a2, &[0x10, 0, 0, 1, 1, 0]),
    ),
    Channel::stop(
        "fcoe",
        "frames of Fibre Channel over Ethernet",
        "open-fcoe",
        |field, pieces| raw_frames(field, pieces, 0x8906, &[0; 14]),
    ),
    Channel::stop(
        "batman",
        "frames of a mesh network",
        "the kernel's batman-adv",
        |field, pieces| raw_frames(field, pieces, 0x4305, &[0x40, 15]),
    ),
    Channel::stop(
        "tipc",
        "frames of a cluster's messages",
        "the kernel's TIPC",
        |field, pieces| raw_frames(field, pieces, 0x88ca, &[0x5a, 0]),
    ),
    Channel::stop(
        "rarp",
        "bytes behind a question for an address by reverse ARP",
        "RFC 903, QEMU's announcements",
        |field, pieces| raw_frames(field, pieces, 0x8035, &[0, 1, 8, 0, 6, 4, 0, 3]),
    ),
    Channel::stop(
        "lldp",
        "data in what a machine tells its switch of itself",
        "lldpd, Yersinia",
        |field, pieces| raw_frames_to(LLDP_GROUP, field, pieces, 0x88cc, &[0x02, 0x07, 4]),
    ),
    Channel::stop(
        "eapol",
        "frames that log in to a switch's port",
        "wpa_supplicant, RFC 3748",
        |field, pieces| raw_frames_to(PORT_GROUP, field, pieces, 0x888e, &[2, 3]),
    ),
    Channel::stop(
        "macsec",
        "frames that look encrypted for the next switch",
        "the kernel's MACsec",
        |field, pieces| raw_frames(field, pieces, 0x88e5, &[0x2c, 0, 0, 0, 0, 1]),
    ),
    Channel::stop(
        "wake-on-lan",
        "bytes behind what wakes a machine up",
        "ether-wake",
        |field, pieces| raw_frames_to(BROADCAST, field, pieces, 0x0842, &[0xff; 6]),
    ),
    Channel::stop("ptp", "messages of a clock", "linuxptp", |field, pieces| {
        raw_frames_to(PTP_GROUP, field, pieces, 0x88f7, &[0x0b, 2])
    }),
    Channel::stop(
        "pause",
        "frames that tell a switch to wait",
        "pktgen, scapy",
        |field, pieces| raw_frames_to(PAUSE_GROUP, field, pieces, 0x8808, &[0, 1, 0xff, 0xff]),
    ),
    Channel::stop(
        "slow-protocols",
        "messages about links that are not those of a bond",
        "OAM (IEEE 802.3ah), LACP",
        |field, pieces| raw_frames_to(SLOW_GROUP, field, pieces, 0x8809, &[3, 0, 0x50]),
    ),
    Channel::stop(
        "cfm",
        "measurements of a connection between switches",
        "the kernel's CFM, dot1ag-utils",
        |field, pieces| raw_frames(field, pieces, 0x8902, &[0, 1]),
    ),
    Channel::stop(
        "ethernet-in-ethernet",
        "Ethernet frames within Ethernet frames",
        "transparent bridging 0x6558, 802.1ah",
        |field, pieces| raw_frames(field, pieces, 0x88e7, &[0; 4]),
    ),
    Channel::stop(
        "llc",
        "frames that have a length where others have a type",
        "IEEE 802.2, scapy",
        |field, pieces| llc(field.gateway, field, pieces, &[0x0a, 0x0a, 3]),
    ),
    Channel::stop(
        "netbios-frames",
        "frames of NetBIOS without IP",
        "NetBEUI, scapy",
        |field, pieces| llc(field.gateway, field, pieces, &[0xf0, 0xf0, 3]),
    ),
    Channel::stop(
        "stp",
        "data in the messages by which bridges make a tree",
        "Yersinia, mstpd",
        |field, pieces| llc(BRIDGE_GROUP, field, pieces, &[0x42, 0x42, 3, 0, 0, 0, 0]),
    ),
    Channel::stop(
        "cdp",
        "data in what Cisco's machines tell each other of themselves",
        "Yersinia, cdpr",
        |field, pieces| {
            let head = [0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0, 2, 180];
            llc(CISCO_GROUP, field, pieces, &head)
        },
    ),
];

fn raw_frames(field: &Field, pieces: &Pieces, ethertype: u16, head: &[u8]) -> io::Result<()> {
    raw_frames_to(field.gateway, field, pieces, ethertype, head)
}

fn raw_frames_to(
    to: Hardware,
    field: &Field,
    pieces: &Pieces,
    ethertype: u16,
    head: &[u8],
) -> io::Result<()> {
    raw::pieces(field, pieces, PIECE, |piece| {
        let mut frame = field.ethernet(ethertype, &[head, piece].concat());
        frame[..6].copy_from_slice(&to);
        frame
    })
}

/// Frames of IEEE 802.3, whose head begins with an LLC header.
fn llc(to: Hardware, field: &Field, pieces: &Pieces, head: &[u8]) -> io::Result<()> {
    raw::pieces(field, pieces, PIECE, |piece| {
        let payload = [head, piece].concat();
        let length = u16::try_from(payload.len()).unwrap_or_default();
        let mut frame = field.ethernet(length, &payload);
        frame[..6].copy_from_slice(&to);
        frame
    })
}
