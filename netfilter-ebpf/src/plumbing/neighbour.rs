//! Solicitations of routers and neighbours, and what a neighbour advertises (RFC 4861).
//!
//! What routers advertise is not a machine's to say.

use crate::packet::{Bytes, Packet};

use super::{hardware, is_link_local, is_multicast, is_unspecified};

const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;

const HEADER: usize = 8;
const TARGET: usize = 16;
/// The one that may follow: type, length in units of eight bytes, data.
const OPTION: usize = 8;

/// ff02::1 and ff02::2; the groups of solicited nodes, without the last 24 bits.
const LINK: u64 = 0xff02_0000_0000_0000;
const ALL_NODES: u64 = 1;
const ALL_ROUTERS: u64 = 2;
const SOLICITED: u64 = 0x1_ff00_0000;

#[inline(always)]
pub(super) fn read<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> bool {
    let at = packet.transport;
    let to = packet.destination;
    let Some([_, code, _, _, flags, reserved @ ..]) = bytes.read::<HEADER>(at) else {
        return false;
    };
    // Behind no extension header. Of the flags, an advertisement has three.
    if at != packet.network + 40 || code != 0 || reserved != [0; 3] {
        return false;
    }
    if packet.kind == ROUTER_SOLICITATION {
        let to_routers = (to.high, to.low) == (LINK, ALL_ROUTERS) || is_link_local(to);
        return flags == 0 && to_routers && options(bytes, packet, at + HEADER, 1);
    }
    let Some(target) = bytes.read::<TARGET>(at + HEADER) else {
        return false;
    };
    let target = crate::abi::Address::from_ipv6(target);
    let behind = at + HEADER + TARGET;
    if is_multicast(target) || is_unspecified(target) {
        return false;
    }
    if packet.kind == NEIGHBOUR_SOLICITATION {
        let group = (LINK, SOLICITED | target.low & 0xff_ffff);
        let asked = to == target || (to.high, to.low) == group;
        return flags == 0 && asked && options(bytes, packet, behind, 1);
    }
    let heard = !is_multicast(to) || (to.high, to.low) == (LINK, ALL_NODES);
    flags & 0x1f == 0 && heard && options(bytes, packet, behind, 2)
}

/// None, or the sender's own hardware address; from who has no address yet, a number by
/// which it knows its own question (RFC 7527).
#[inline(always)]
fn options<B: Bytes + ?Sized>(bytes: &B, packet: &Packet, at: usize, kind: u8) -> bool {
    const NONCE: u8 = 14;
    if at == packet.end {
        return true;
    }
    if at + OPTION != packet.end {
        return false;
    }
    let Some([found, 1, data @ ..]) = bytes.read::<OPTION>(at) else {
        return false;
    };
    if is_unspecified(packet.source) {
        return found == NONCE && packet.kind == NEIGHBOUR_SOLICITATION;
    }
    found == kind && hardware(bytes, packet) == Some(data)
}
