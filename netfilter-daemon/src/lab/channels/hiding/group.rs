//! Multicast groups that somebody says to listen to.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::Field,
        frame::{ICMPV6, Packet},
        ledger::{Found, Pieces},
    },
    probe::Family,
};

const REPORTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const REPORTS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

const IGMP: u8 = 2;
/// Router alert: of IPv4, and of IPv6 in a header of its own.
const ALERT: [u8; 4] = [148, 4, 0, 0];
const ALERT_V6: [u8; 8] = [0, 0, 5, 2, 0, 0, 1, 0];

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "mld-behind",
        "bytes behind the records of a multicast listener report",
        "scapy; RFC 3810 section 5.2.11 says to ignore them",
        |field, pieces| {
            mld(field, pieces, |piece| {
                [&[0, 1, 4, 0, 0, 0][..], &group([7; 15]), piece].concat()
            })
        },
    ),
    Channel::stop(
        "mld-auxiliary",
        "auxiliary data of a record in a multicast listener report",
        "scapy; RFC 3810 defines none",
        |field, pieces| {
            mld(field, pieces, |piece| {
                let mut data = piece.to_vec();
                data.resize(piece.len().next_multiple_of(4), 0);
                let words = u8::try_from(data.len() / 4).unwrap_or_default();
                [&[0, 1, 4, words, 0, 0][..], &group([7; 15]), &data].concat()
            })
        },
    ),
    Channel::stop(
        "igmp-behind",
        "bytes behind an IGMP report",
        "scapy; tunnels over IGMP",
        |field, pieces| igmp(field, pieces, 0x22, &[0, 1, 4, 0, 0, 0, 239, 1, 2, 3]),
    ),
    Channel::stop(
        "igmp-query",
        "bytes of a query as only a router sends it",
        "scapy",
        |field, pieces| igmp(field, pieces, 0x11, &[239, 1, 2, 3, 0, 0]),
    ),
    Channel {
        name: "multicast-groups",
        how: "the groups of well-formed listener reports, fifteen bytes of each",
        seen_in: "described for IGMP and MLD snooping switches",
        aim: Aim::OutOfScope {
            why: "who listens to a group must say so, or hears nothing; an interface may tell 300 \
                  addresses at once and 150 a minute, so at most 40 bytes a second, and only to \
                  the link",
            remedy: "keep strangers off the link; cloud networks carry no multicast",
        },
        carry: |field, pieces| {
            let wire = field.wire()?;
            each(pieces.of(60 * 15), |piece| {
                let records = piece.chunks(15).flat_map(|bytes| {
                    let mut room = [0; 15];
                    room[..bytes.len()].copy_from_slice(bytes);
                    [&[4, 0, 0, 0][..], &group(room)].concat()
                });
                let count = u8::try_from(piece.len().div_ceil(15)).unwrap_or_default();
                let body: Vec<u8> = [0, count].into_iter().chain(records).collect();
                wire.send(&report(field, &body)?)
            })
        },
        read: Some(|frame| {
            let packet = frame.get(14..14 + 56)?;
            let ours = packet[6] == 0 && packet[40] == ICMPV6 && packet[48] == 143;
            let records = frame.get(14 + 56..)?.chunks_exact(20);
            ours.then(|| Found::Pieces(records.flat_map(|it| &it[5..]).copied().collect()))
        }),
    },
];

/// Of the site, with these bytes.
fn group(bytes: [u8; 15]) -> [u8; 16] {
    let mut group = [0xff; 16];
    group[1..].copy_from_slice(&bytes);
    group
}

fn mld(field: &Field, pieces: &Pieces, records: impl Fn(&[u8]) -> Vec<u8>) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.of(1000), |piece| {
        wire.send(&report(field, &records(&piece))?)
    })
}

/// A report of version 2: the number of records, and these.
fn report(field: &Field, body: &[u8]) -> io::Result<Vec<u8>> {
    field.side(Family::V6)?;
    let body = [&[0, 0], body].concat();
    let mut packet = Packet::icmp(LOCAL.into(), REPORTS_V6.into(), 143, 0, &body);
    packet.hops = 1;
    packet.extensions = vec![(0, ALERT_V6.to_vec())];
    let mut frame = field.frame(&packet);
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 0x16]);
    Ok(frame)
}

fn igmp(field: &Field, pieces: &Pieces, kind: u8, head: &[u8]) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.of(1000), |piece| {
        let body = [&[0; 2], head, &piece].concat();
        wire.send(&report_v4(field, kind, &body)?)
    })
}

fn report_v4(field: &Field, kind: u8, body: &[u8]) -> io::Result<Vec<u8>> {
    let from = field.side(Family::V4)?.local;
    let message = [&[kind, 0, 0, 0], body].concat();
    let mut packet = Packet::new(from, IpAddr::V4(REPORTS), IGMP, message);
    packet.hops = 1;
    packet.options = ALERT.to_vec();
    let sum = netfilter_ebpf::checksum::finish(netfilter_ebpf::checksum::sum(&packet.payload));
    packet.payload[2..4].copy_from_slice(&sum);
    let mut frame = field.frame(&packet);
    frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 0x16]);
    Ok(frame)
}
