//! Fields of IP and UDP that nobody reads.

use std::{io, net::IpAddr};

use netfilter_ebpf::checksum;

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::Field,
        frame::Packet,
        ledger::{Found, Pieces},
    },
    probe::Family,
};

/// Ports at which only these channels knock.
const IDS: u16 = 4604;
const CLASSES: u16 = 4605;
const SOURCES: u16 = 4606;
const LABELS: u16 = 4607;

const ETHERNET: usize = 14;

pub(super) const CHANNELS: &[Channel] = &[
    Channel {
        name: "ip-id",
        how: "the identification of IPv4 packets, two bytes of each",
        seen_in: "covert_tcp (Rowland 1997)",
        aim: Aim::Stop,
        carry: |field, pieces| {
            datagrams(
                field,
                pieces,
                (Family::V4, IDS, 2),
                |index, bytes, packet| {
                    packet[4..6].copy_from_slice(bytes);
                    packet[20..22].copy_from_slice(&index);
                },
            )
        },
        read: Some(|frame| {
            let packet = ipv4(frame, IDS)?;
            part(&packet[20..22], &packet[4..6])
        }),
    },
    Channel {
        name: "ip-class-ttl",
        how: "type of service and time to live, two bytes of each packet",
        seen_in: "Zander et al. 2006, Covert Channels in the IP Time To Live Field",
        aim: Aim::Stop,
        carry: |field, pieces| {
            datagrams(
                field,
                pieces,
                (Family::V4, CLASSES, 2),
                |index, bytes, packet| {
                    (packet[1], packet[8]) = (bytes[0], bytes[1]);
                    packet[20..22].copy_from_slice(&index);
                },
            )
        },
        read: Some(|frame| {
            let packet = ipv4(frame, CLASSES)?;
            part(&packet[20..22], &[packet[1], packet[8]])
        }),
    },
    Channel {
        name: "source-port",
        how: "the source port of datagrams, two bytes of each",
        seen_in: "port knocking, the other way round",
        aim: Aim::Stop,
        carry: |field, pieces| {
            datagrams(
                field,
                pieces,
                (Family::V4, SOURCES, 2),
                |index, bytes, packet| {
                    packet[4..6].copy_from_slice(&index);
                    packet[20..22].copy_from_slice(bytes);
                },
            )
        },
        read: Some(|frame| {
            let packet = ipv4(frame, SOURCES)?;
            part(&packet[4..6], &packet[20..22])
        }),
    },
    Channel {
        name: "flow-label",
        how: "traffic class, flow label and hop limit of IPv6, four bytes of each packet",
        seen_in: "Lucena et al. 2005, Covert Channels in IPv6",
        aim: Aim::Stop,
        carry: |field, pieces| {
            datagrams(
                field,
                pieces,
                (Family::V6, LABELS, 4),
                |index, bytes, packet| {
                    packet[0] = 0x60 | bytes[0] >> 4;
                    packet[1] = bytes[0] << 4;
                    packet[2..4].copy_from_slice(&bytes[1..3]);
                    packet[7] = bytes[3];
                    packet[40..42].copy_from_slice(&index);
                },
            )
        },
        read: Some(|frame| {
            let packet = frame
                .get(ETHERNET..)
                .filter(|_| frame[12..14] == [0x86, 0xdd])?;
            let ours = packet.get(6) == Some(&17) && packet.get(42..44)? == LABELS.to_be_bytes();
            let first = packet[0] << 4 | packet[1] >> 4;
            ours.then(|| part(&packet[40..42], &[first, packet[2], packet[3], packet[7]]))?
        }),
    },
];

/// An empty datagram for every few bytes, with its number.
fn datagrams(
    field: &Field,
    pieces: &Pieces,
    (family, port, size): (Family, u16, usize),
    fill: impl Fn([u8; 2], &[u8], &mut [u8]),
) -> io::Result<()> {
    let side = field.side(family)?;
    let wire = field.wire()?;
    let packet = Packet::udp((side.local, 0), (side.denied, port), &[]);
    let (ethertype, mut packet) = (packet.ethertype(), packet.bytes());
    each((0u16..).zip(pieces.parts(size)), |(index, (_, bytes))| {
        fill(index.to_be_bytes(), bytes, &mut packet);
        if let IpAddr::V4(_) = side.local {
            packet[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(&packet[..20]));
            packet[10..12].copy_from_slice(&sum);
            packet[26..28].fill(0); // without one
        }
        wire.send(&field.ethernet(ethertype, &packet))
    })
}

/// An IPv4 packet with a datagram to this port.
fn ipv4(frame: &[u8], port: u16) -> Option<&[u8]> {
    let packet = frame.get(ETHERNET..ETHERNET + 28)?;
    let ours = frame[12..14] == [8, 0] && packet[0] == 0x45 && packet[9] == 17;
    (ours && packet[22..24] == port.to_be_bytes()).then_some(packet)
}

fn part(index: &[u8], bytes: &[u8]) -> Option<Found> {
    let index = usize::from(u16::from_be_bytes(index.try_into().ok()?));
    Some(Found::Part {
        offset: index * bytes.len(),
        bytes: bytes.to_vec(),
    })
}
