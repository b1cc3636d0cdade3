//! What is said to servers of DHCP and NTP, or seems to be.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::lab::{
    battery::{Aim, Channel, each, field::Field, frame::Packet, ledger::Pieces},
    channels::plain::packets,
    probe::Family,
};

const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const EVERYBODY: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);
/// All DHCP relay agents and servers (RFC 8415 section 7.1).
const SERVERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));
const LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));

/// Where several clouds have their DHCP servers, and no router leads.
const CLOUD: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

const END: u8 = 255;
/// That it is a discovery.
const DISCOVER: [u8; 3] = [53, 1, 1];
/// That it is a request.
const REQUEST: [u8; 3] = [53, 1, 3];

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "dhcp-anything",
        "anything to everybody, from the port of DHCP clients to that of servers",
        "filters that know DHCP by its ports",
        |field, pieces| broadcast(field, pieces, 1024, |_, piece| piece.to_vec()),
    ),
    Channel::stop(
        "dhcp-options",
        "options of DHCP that clients do not send",
        "dhcpcd hooks; Rios et al. 2012, covert channels in DHCP (HIDE_DHCP)",
        |field, pieces| {
            broadcast(field, pieces, 240, |field, piece| {
                let option = [&[224, length(piece)], piece].concat();
                bootp(field, &[&DISCOVER[..], &option, &[END]].concat())
            })
        },
    ),
    Channel::stop(
        "dhcp-file",
        "the names of server and boot file in a DHCP discovery",
        "Rios et al. 2012 (HIDE_DHCP)",
        |field, pieces| {
            broadcast(field, pieces, 192, |field, piece| {
                let mut message = bootp(field, &[&DISCOVER[..], &[END]].concat());
                message[44..44 + piece.len()].copy_from_slice(piece);
                message
            })
        },
    ),
    Channel::stop(
        "dhcp-behind",
        "bytes behind the last option of a DHCP discovery",
        "Rios et al. 2012 (HIDE_DHCP)",
        |field, pieces| {
            broadcast(field, pieces, 256, |field, piece| {
                bootp(field, &[&DISCOVER[..], &[END], piece].concat())
            })
        },
    ),
    Channel::stop(
        "dhcp-server",
        "answers of a DHCP server to everybody",
        "rogue DHCP servers",
        |field, pieces| {
            let wire = field.wire()?;
            let from = field.side(Family::V4)?.local;
            each(pieces.of(1024), |piece| {
                let packet = Packet::udp((from, 67), (EVERYBODY, 68), &piece);
                wire.send(&to_everybody(field, &packet, [0xff; 6]))
            })
        },
    ),
    Channel::stop(
        "dhcp-renewal",
        "anything to where clouds have their DHCP servers, as if a lease were renewed",
        "filters that let renewals pass by their ports",
        |field, pieces| renewal(field, pieces, 1024, |_, piece| piece.to_vec()),
    ),
    Channel::stop(
        "dhcp-renewal-options",
        "options that clients do not send, where a lease is renewed",
        "Rios et al. 2012 (HIDE_DHCP)",
        |field, pieces| {
            renewal(field, pieces, 240, |field, piece| {
                let option = [&[224, length(piece)], piece].concat();
                bootp(field, &[&REQUEST[..], &option, &[END]].concat())
            })
        },
    ),
    Channel::stop(
        "dhcp-relayed",
        "a host name in a renewal as clients send it, to a server at a denied address",
        "relays that anybody can run",
        |field, pieces| {
            let side = field.side(Family::V4)?;
            let wire = field.wire()?;
            each(pieces.of(64), |piece| {
                let options = [&REQUEST[..], &[12, length(&piece)], &piece, &[END]].concat();
                let packet =
                    Packet::udp((side.local, 68), (side.denied, 67), &bootp(field, &options));
                wire.send(&field.frame(&packet))
            })
        },
    ),
    Channel::stop(
        "dhcp-elsewhere",
        "DHCP requests to a server at a denied address",
        "relays that anybody can run",
        |field, pieces| to_denied(field, (68, 67), &[1, 1, 6, 0], pieces),
    ),
    Channel::stop(
        "dhcp6-anything",
        "anything from the port of DHCPv6 clients to all servers on the link",
        "filters that know DHCP by its ports",
        |field, pieces| solicit(field, pieces, |piece| piece.to_vec()),
    ),
    Channel::stop(
        "dhcp6-options",
        "options of DHCPv6 that clients do not send",
        "vendor options (RFC 8415 section 21.17)",
        |field, pieces| {
            solicit(field, pieces, |piece| {
                let length = u16::try_from(piece.len()).unwrap_or_default();
                [&[1, 0, 0, 7, 0, 17], &length.to_be_bytes()[..], piece].concat()
            })
        },
    ),
    Channel {
        name: "dhcp-names",
        how: "host name, client identifier and vendor class, as every DHCP client sends them",
        seen_in: "Rios et al. 2012 (HIDE_DHCP)",
        aim: Aim::OutOfScope {
            why: "a machine without an address must be able to ask for one, and say who it is; \
                  an interface gets 30 requests at once and 30 a minute, of at most 256 bytes of \
                  options, so about 130 bytes a second",
            remedy: "keep strangers off the link, and let the switch drop DHCP that is not for \
                     its servers (DHCP snooping); cloud networks do both",
        },
        carry: |field, pieces| {
            let wire = field.wire()?;
            let all: Vec<_> = pieces.of(64).collect();
            each(all.chunks(3), |three| {
                let options = [12, 60, 61].iter().zip(three);
                let options = options
                    .flat_map(|(code, piece)| [&[*code, length(piece)], &piece[..]].concat());
                let options: Vec<u8> = DISCOVER.into_iter().chain(options).chain([END]).collect();
                let message = bootp(field, &options);
                let packet = Packet::udp((NOBODY, 68), (EVERYBODY, 67), &message);
                wire.send(&to_everybody(field, &packet, [0xff; 6]))
            })
        },
        read: None,
    },
    Channel::stop(
        "ntp",
        "extension fields of NTP to a server at a denied address",
        "NTPsnitch, NTP tunnels (Tsapakis 2019)",
        // Version 4, client; an extension field of no known type (RFC 7822).
        |field, pieces| {
            let mut header = [0; 52];
            header[0] = 0x23;
            header[48..52].copy_from_slice(&[0x7f, 1, 4, 4]);
            to_denied(field, (123, 123), &header, pieces)
        },
    ),
];

fn length(piece: &[u8]) -> u8 {
    u8::try_from(piece.len()).unwrap_or_default()
}

/// A request of this interface with these options (RFC 2131 section 2).
fn bootp(field: &Field, options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
    message[28..34].copy_from_slice(&field.hardware);
    message.extend([99, 130, 83, 99]);
    message.extend(options);
    message
}

fn broadcast(
    field: &Field,
    pieces: &Pieces,
    room: usize,
    message: impl Fn(&Field, &[u8]) -> Vec<u8>,
) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.of(room), |piece| {
        let packet = Packet::udp((NOBODY, 68), (EVERYBODY, 67), &message(field, &piece));
        wire.send(&to_everybody(field, &packet, [0xff; 6]))
    })
}

fn renewal(
    field: &Field,
    pieces: &Pieces,
    room: usize,
    message: impl Fn(&Field, &[u8]) -> Vec<u8>,
) -> io::Result<()> {
    let local = field.side(Family::V4)?.local;
    let wire = field.wire()?;
    each(pieces.of(room), |piece| {
        let packet = Packet::udp((local, 68), (CLOUD, 67), &message(field, &piece));
        wire.send(&field.frame(&packet))
    })
}

fn solicit(field: &Field, pieces: &Pieces, message: impl Fn(&[u8]) -> Vec<u8>) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.of(256), |piece| {
        let packet = Packet::udp((LOCAL, 546), (SERVERS, 547), &message(&piece));
        wire.send(&to_everybody(field, &packet, [0x33, 0x33, 0, 1, 0, 2]))
    })
}

fn to_denied(
    field: &Field,
    (from, to): (u16, u16),
    header: &[u8],
    pieces: &Pieces,
) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    packets(field, pieces, |piece| {
        let data = [header, piece].concat();
        Packet::udp((side.local, from), (side.denied, to), &data)
    })
}

fn to_everybody(field: &Field, packet: &Packet, hardware: [u8; 6]) -> Vec<u8> {
    let mut frame = field.frame(packet);
    frame[..6].copy_from_slice(&hardware);
    frame
}
