//! What tells a sender that its packet was refused: a TCP reset, or ICMP
//! "communication administratively prohibited". Headers from the IP header on.

use crate::{
    checksum,
    packet::{ACK, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP},
};

pub const IPV4_HEADER: usize = 20;
pub const IPV6_HEADER: usize = 40;
pub const TCP_HEADER: usize = 20;
pub const ICMP_HEADER: usize = 8;
/// Bytes of the refused packet's transport header that ICMP quotes (RFC 792).
const QUOTED: usize = 8;
const HOPS: u8 = 64;

/// The headers that stand before the quoted packet.
pub const PROHIBITED_IPV4: usize = IPV4_HEADER + ICMP_HEADER;
/// The ICMPv6 message.
pub const PROHIBITED_IPV6: usize = ICMP_HEADER + QUOTED_IPV6;
/// What is quoted of the refused packet.
pub const QUOTED_IPV4: usize = IPV4_HEADER + QUOTED;
pub const QUOTED_IPV6: usize = IPV6_HEADER + QUOTED;

// The same lengths as header fields want them.
const TCP_LENGTH: u32 = 20;
const ANSWER_IPV4_LENGTH: u8 = 56;
const PROHIBITED_IPV6_LENGTH: u32 = 56;
const _: () = assert!(
    TCP_HEADER == TCP_LENGTH as usize
        && PROHIBITED_IPV4 + QUOTED_IPV4 == ANSWER_IPV4_LENGTH as usize
        && PROHIBITED_IPV6 == PROHIBITED_IPV6_LENGTH as usize
);

/// The reset that answers a segment of `payload` bytes (RFC 9293 section
/// 3.10.7.1): the fixed part of a TCP header. `addresses`: those of the IP
/// header, source and destination. `None` for a reset.
#[must_use]
#[inline(always)]
pub fn reset(
    segment: &[u8; TCP_HEADER],
    payload: u32,
    addresses: &[u8],
) -> Option<[u8; TCP_HEADER]> {
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, _, flags, ..] = *segment;
    if flags & RST != 0 {
        return None;
    }
    let (sequence, acknowledged, answer) = if flags & ACK != 0 {
        ([a0, a1, a2, a3], [0; 4], RST)
    } else {
        let length = payload + (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32;
        (
            [0; 4],
            u32::from_be_bytes([q0, q1, q2, q3])
                .wrapping_add(length)
                .to_be_bytes(),
            RST | ACK,
        )
    };
    let ([q0, q1, q2, q3], [a0, a1, a2, a3]) = (sequence, acknowledged);
    let mut tcp = [
        d0, d1, s0, s1, q0, q1, q2, q3, a0, a1, a2, a3, 0x50, answer, 0, 0, 0, 0, 0, 0,
    ];
    let pseudo = checksum::sum(addresses) + TCP as u32 + TCP_LENGTH;
    let [high, low] = checksum::finish(pseudo + checksum::sum(&tcp));
    tcp[16] = high;
    tcp[17] = low;
    Some(tcp)
}

/// Destination unreachable, communication administratively prohibited (RFC 1812
/// section 5.2.7.1), to the sender of a packet without IPv4 options:
/// the headers that go before its quoted beginning.
#[must_use]
#[inline(always)]
pub fn prohibited_ipv4(refused: &[u8; QUOTED_IPV4]) -> [u8; PROHIBITED_IPV4] {
    const UNREACHABLE: u8 = 3;
    const PROHIBITED: u8 = 13;
    let mut packet = [0; PROHIBITED_IPV4];
    packet[..IPV4_HEADER].copy_from_slice(&ipv4(refused, ANSWER_IPV4_LENGTH, ICMP));
    packet[IPV4_HEADER] = UNREACHABLE;
    packet[IPV4_HEADER + 1] = PROHIBITED;
    let [high, low] = checksum::finish(
        checksum::sum(refused) + u32::from_be_bytes([0, 0, UNREACHABLE, PROHIBITED]),
    );
    packet[IPV4_HEADER + 2] = high;
    packet[IPV4_HEADER + 3] = low;
    packet
}

/// Destination unreachable, communication administratively prohibited (RFC 4443
/// section 3.1): the ICMPv6 header that goes before the quoted beginning.
#[must_use]
#[inline(always)]
pub fn prohibited_ipv6(refused: &[u8; QUOTED_IPV6]) -> [u8; ICMP_HEADER] {
    const UNREACHABLE: u8 = 1;
    const PROHIBITED: u8 = 1;
    let pseudo = checksum::sum(&refused[8..40]) + PROHIBITED_IPV6_LENGTH + ICMPV6 as u32;
    let message = checksum::sum(refused) + u32::from_be_bytes([0, 0, UNREACHABLE, PROHIBITED]);
    let [high, low] = checksum::finish(pseudo + message);
    [UNREACHABLE, PROHIBITED, high, low, 0, 0, 0, 0]
}

/// The header of an answer to a packet that begins with `refused`: addresses
/// exchanged. `length` is that of the whole answer.
#[must_use]
#[inline(always)]
pub fn ipv4<const N: usize>(refused: &[u8; N], length: u8, protocol: u8) -> [u8; IPV4_HEADER] {
    let mut ip = [
        0x45, 0, 0, length, 0, 0, 0x40, 0, HOPS, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    ip[12..16].copy_from_slice(&refused[16..20]);
    ip[16..].copy_from_slice(&refused[12..16]);
    let [high, low] = checksum::finish(checksum::sum(&ip));
    ip[10] = high;
    ip[11] = low;
    ip
}

/// What changes in an IPv6 header, at offset 4, once its addresses are
/// exchanged: payload length, next header, hop limit.
#[must_use]
#[inline(always)]
pub const fn ipv6(payload: u8, next: u8) -> [u8; 4] {
    [0, payload, next, HOPS]
}

/// What a segment of `payload` bytes needs to be one from the other end, which
/// acknowledges it, goes on where it expects, and ends there: offsets in
/// the TCP header, and the bytes there.
#[must_use]
#[inline(always)]
pub const fn answered(header: &[u8; TCP_HEADER], payload: u32) -> [(usize, [u8; 2]); 5] {
    let [_, _, _, _, q0, q1, q2, q3, a0, a1, a2, a3, offset, ..] = *header;
    let acknowledged = u32::from_be_bytes([q0, q1, q2, q3]).wrapping_add(payload);
    let [n0, n1, n2, n3] = acknowledged.to_be_bytes();
    [
        (4, [a0, a1]),
        (6, [a2, a3]),
        (8, [n0, n1]),
        (10, [n2, n3]),
        (12, [offset, PSH | ACK | FIN]),
    ]
}

/// A query's flags (RFC 1035 section 4.1.1) made those of a response with `rcode`:
/// recursion was available, whether desired and checking disabled stay as they were.
#[must_use]
#[inline(always)]
pub const fn response_flags([high, low]: [u8; 2], rcode: u8) -> [u8; 2] {
    [0x80 | high & 0x01, 0x80 | low & 0x10 | rcode & 0x0f]
}
