//! ICMP errors: what they quote, and the packet that would answer it.
//!
//! An error tells a sender that its packet did not arrive, or how large the next
//! one may be. It may leave if an answer to that packet might.

use crate::{
    abi::Address,
    packet::{self, Bytes, Fragment, ICMP, ICMPV6, Packet, TCP, UDP},
};

/// Before the quoted packet (RFC 792; RFC 4443 section 2.1).
const ICMP_HEADER: usize = 8;
/// Of extension headers, which a quoted packet hardly ever has.
const MAX_EXTENSIONS: usize = 2;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Destination unreachable (which "fragmentation needed" is), time exceeded and
/// parameter problem; ICMPv6: and packet too big. No others answer a packet.
#[must_use]
#[inline(always)]
pub const fn is_error(protocol: u8, kind: u8) -> bool {
    matches!((protocol, kind), (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4))
}

/// The packet that would answer the one that `error` quotes. `None` where that was
/// not sent by whom the error is for, is itself an error, or does not tell its ports.
#[inline(always)]
pub fn answer<B: Bytes + ?Sized>(bytes: &B, error: &Packet) -> Option<Packet> {
    if !matches!(error.fragment, Fragment::Whole) {
        return None;
    }
    let network = B::widen(error.transport + ICMP_HEADER);
    let mut quoted = if error.destination.is_ipv4() {
        ipv4(bytes, network)?
    } else {
        ipv6(bytes, network)?
    };
    // From here on it is the answer: its ends are exchanged.
    if quoted.destination != error.destination {
        return None;
    }
    let at = B::widen(quoted.transport);
    if at + 8 > error.end {
        return None;
    }
    let header: [u8; 8] = bytes.read(at)?;
    match quoted.protocol {
        TCP | UDP => {
            quoted.destination_port = u16::from_be_bytes([header[0], header[1]]);
            quoted.source_port = u16::from_be_bytes([header[2], header[3]]);
        }
        ICMP | ICMPV6 if is_error(quoted.protocol, header[0]) => return None,
        ICMP | ICMPV6 if packet::is_echo(quoted.protocol, header[0]) => {
            quoted.source_port = u16::from_be_bytes([header[4], header[5]]);
            quoted.destination_port = quoted.source_port;
        }
        _ => {}
    }
    Some(quoted)
}

/// The answer to a quoted packet, as far as its IP header tells.
#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(bytes: &B, network: usize) -> Option<Packet> {
    let header: [u8; 20] = bytes.read(network)?;
    let length = (header[0] & 0x0f) as usize * 4;
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[0] >> 4 != 4 || length < 20 || offset != 0 {
        return None;
    }
    let address = |at: usize| {
        Address::from_ipv4(u32::from_be_bytes([
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ]))
    };
    Some(Packet::between(
        address(16),
        address(12),
        header[9],
        network + length,
    ))
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(bytes: &B, network: usize) -> Option<Packet> {
    let header: [u8; 40] = bytes.read(network)?;
    let (_, addresses) = header.split_at(8);
    let (source, destination) = addresses.split_at(16);
    if header[0] >> 4 != 6 {
        return None;
    }
    let (mut protocol, mut transport) = (header[6], network + 40);
    for _ in 0..MAX_EXTENSIONS {
        let at = B::widen(transport);
        match protocol {
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let [next, length] = bytes.read(at)?;
                protocol = next;
                transport = at + (length as usize + 1) * 8;
            }
            FRAGMENT => {
                let [next, _, high, low] = bytes.read(at)?;
                if u16::from_be_bytes([high, low]) >> 3 != 0 {
                    return None;
                }
                protocol = next;
                transport = at + 8;
            }
            _ => break,
        }
    }
    if matches!(protocol, HOP_BY_HOP | DESTINATION_OPTIONS | FRAGMENT | 43) {
        return None;
    }
    Some(Packet::between(
        Address::from_ipv6(*destination.first_chunk()?),
        Address::from_ipv6(*source.first_chunk()?),
        protocol,
        transport,
    ))
}
