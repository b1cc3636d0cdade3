//! Fields of IP and UDP that nobody reads.

use std::io;

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
const SOURCES: u16 = 4606;
const LABELS: u16 = 4607;

/// Bytes of the secret in a packet.
const ROOM: usize = 4;

const ETHERNET: usize = 14;

pub(super) const CHANNELS: &[Channel] = &[
    Channel {
        name: "ip-id",
        how: "identification, type of service and time to live of IPv4, four bytes of each packet",
        seen_in: "covert_tcp (Rowland 1997); Zander et al. 2006, covert channels in the TTL",
        aim: Aim::Stop,
        carry: |field, pieces| {
            datagrams(field, pieces, (Family::V4, IDS), |index, bytes, packet| {
                packet[4..6].copy_from_slice(&bytes[..2]);
                (packet[1], packet[8]) = (bytes[2], bytes[3]);
                packet[20..22].copy_from_slice(&index);
            })
        },
        read: Some(|frame| {
            let packet = ipv4(frame, IDS)?;
            let bytes = [packet[4], packet[5], packet[1], packet[8]];
            part(&packet[20..22], &bytes)
        }),
    },
    Channel {
        name: "source-port",
        how: "source port and checksum of datagrams, four bytes of each",
        seen_in: "port knocking, the other way round",
        aim: Aim::Stop,
        carry: |field, pieces| {
            datagrams(
                field,
                pieces,
                (Family::V4, SOURCES),
                |index, bytes, packet| {
                    packet[4..6].copy_from_slice(&index);
                    packet[20..22].copy_from_slice(&bytes[..2]);
                    packet[26..28].copy_from_slice(&bytes[2..]);
                },
            )
        },
        read: Some(|frame| {
            let packet = ipv4(frame, SOURCES)?;
            let bytes = [packet[20], packet[21], packet[26], packet[27]];
            part(&packet[4..6], &bytes)
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
                (Family::V6, LABELS),
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
    (family, port): (Family, u16),
    fill: impl Fn([u8; 2], &[u8], &mut [u8]),
) -> io::Result<()> {
    let side = field.side(family)?;
    let wire = field.wire()?;
    let packet = Packet::udp((side.local, 0), (side.denied, port), &[]);
    let (ethertype, mut packet) = (packet.ethertype(), packet.bytes());
    let header = packet.len() - 8;
    each((0u16..).zip(pieces.parts(ROOM)), |(index, (_, bytes))| {
        // Without a checksum, which IPv4 allows.
        packet[header + 6..header + 8].fill(0);
        fill(index.to_be_bytes(), bytes, &mut packet);
        if side.local.is_ipv4() {
            packet[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(&packet[..20]));
            packet[10..12].copy_from_slice(&sum);
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
