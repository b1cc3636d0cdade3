//! Reports of the multicast groups that somebody listens to, with nothing but addresses.
//!
//! Who asks for them is a router.

use crate::{
    abi::Address,
    packet::{Bytes, Packet},
};

use super::{is_link_local, is_multicast, is_unspecified};

/// Records of a report: more than a packet of 1,500 bytes has of IPv6.
const MAX_RECORDS: usize = 96;

/// IGMP, behind no option or the router alert (RFC 2236, RFC 3376). Returns how many
/// addresses are told.
#[inline(always)]
pub(super) fn igmp<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Option<u32> {
    const REPORT_V1: u8 = 0x12;
    const REPORT_V2: u8 = 0x16;
    const LEAVE: u8 = 0x17;
    const REPORT_V3: u8 = 0x22;
    const ALL_ROUTERS: u64 = Address::from_ipv4(0xe000_0002).low;
    const REPORTS: u64 = Address::from_ipv4(0xe000_0016).low;
    let (network, at) = (packet.network, packet.transport);
    let plain = at == network + 20;
    let alert = at == network + 24 && bytes.read(network + 20) == Some([148, 4, 0, 0]);
    let [kind, code, _, _, fields @ ..] = bytes.read::<8>(at)?;
    if !(plain || alert) || code != 0 {
        return None;
    }
    let to = packet.destination;
    let group = u32::from_be_bytes(fields);
    let to_group = to.low == Address::from_ipv4(group).low;
    let [reserved, unused, high, low] = fields;
    match kind {
        REPORT_V3 if to.low == REPORTS && [reserved, unused] == [0; 2] => {
            records::<B, 4>(bytes, at + 8, packet.end, u16::from_be_bytes([high, low]))
        }
        REPORT_V1 | REPORT_V2 if to_group => single(group, at + 8 == packet.end),
        LEAVE if to.low == ALL_ROUTERS => single(group, at + 8 == packet.end),
        _ => None,
    }
}

#[inline(always)]
fn single(group: u32, exact: bool) -> Option<u32> {
    (exact && group >> 28 == 0xe).then_some(1)
}

/// MLD, behind exactly the router alert (RFC 2710, RFC 3810), from the link.
#[inline(always)]
pub(super) fn mld<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Option<u32> {
    const REPORT: u8 = 131;
    const DONE: u8 = 132;
    const LINK: u64 = 0xff02_0000_0000_0000;
    const ALL_ROUTERS: Address = Address { high: LINK, low: 2 };
    const REPORTS: Address = Address {
        high: LINK,
        low: 0x16,
    };
    const HOP_BY_HOP: u8 = 0;
    let (network, at) = (packet.network, packet.transport);
    let alert = bytes.read(network + 6) == Some([HOP_BY_HOP])
        && matches!(
            bytes.read(network + 40),
            Some([58, 0, 5, 2, 0, 0, 1, 0] | [58, 0, 1, 0, 5, 2, 0, 0])
        );
    // A machine that has no address yet reports, too (RFC 3590).
    let from = is_link_local(packet.source) || is_unspecified(packet.source);
    let [_, code, _, _, delay, unused, high, low] = bytes.read::<8>(at)?;
    if !alert || !from || at != network + 48 || code != 0 || [delay, unused] != [0; 2] {
        return None;
    }
    if packet.kind != REPORT && packet.kind != DONE {
        let count = u16::from_be_bytes([high, low]);
        return (packet.destination == REPORTS)
            .then(|| records::<B, 16>(bytes, at + 8, packet.end, count))?;
    }
    let group = Address::from_ipv6(bytes.read(at + 8)?);
    let asked = match packet.kind {
        DONE => packet.destination == ALL_ROUTERS,
        _ => packet.destination == group,
    };
    let exact = at + 24 == packet.end && [high, low] == [0; 2];
    (asked && exact && is_multicast(group)).then_some(1)
}

/// Counts the groups and sources of so many records: type, length of the auxiliary data,
/// of which there is none, number of sources, group, sources.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a packet has fewer than 2³² bytes"
)]
fn records<B: Bytes + ?Sized, const ADDRESS: usize>(
    bytes: &B,
    mut at: usize,
    end: usize,
    count: u16,
) -> Option<u32> {
    const TYPES: core::ops::RangeInclusive<u8> = 1..=6;
    let all = (end.checked_sub(at)? / ADDRESS) as u32;
    let mut left = count;
    for _ in 0..MAX_RECORDS {
        at = B::widen(at);
        if left == 0 {
            break;
        }
        let [kind, auxiliary, high, low] = bytes.read(at)?;
        let [group] = bytes.read(at + 4)?;
        let is_group = if ADDRESS == 4 {
            group >> 4 == 0xe
        } else {
            group == 0xff
        };
        if !TYPES.contains(&kind) || auxiliary != 0 || !is_group || at >= end {
            return None;
        }
        at += 4 + ADDRESS + u16::from_be_bytes([high, low]) as usize * ADDRESS;
        left -= 1;
    }
    (count > 0 && left == 0 && at == end).then_some(all)
}
