//! What a machine must send to live on its network, to the addresses where it
//! belongs, and nothing else.

use crate::{
    abi::Address,
    packet::{Fragment, ICMPV6, IGMP, Packet, UDP},
};

const BROADCAST: Address = Address::from_ipv4(0xffff_ffff);
/// ff02::1:2, all DHCP relay agents and servers (RFC 8415 section 7.1).
const DHCP_SERVERS: Address = Address {
    high: 0xff02_0000_0000_0000,
    low: 0x1_0002,
};

/// Whether the packet is DHCP, neighbour discovery on the link, or the
/// announcement of a multicast group.
///
/// A DHCPv4 client renews by unicast first and falls back to broadcast at T2
/// (RFC 2131 section 4.4.5); the unicast needs a rule.
#[must_use]
#[inline(always)]
pub fn is_plumbing(packet: &Packet) -> bool {
    if !matches!(packet.fragment, Fragment::Whole) {
        return false;
    }
    let to = packet.destination;
    match packet.protocol {
        UDP => {
            let ports = (packet.source_port, packet.destination_port);
            (ports == (68, 67) && to == BROADCAST) || (ports == (546, 547) && to == DHCP_SERVERS)
        }
        IGMP => packet.hops == 1 && to.is_ipv4() && to.low >> 8 & 0xff_ffff == 0xe0_0000,
        ICMPV6 => match packet.kind {
            // Multicast listener query, report, done; version 2 report (RFC 2710, RFC 3810).
            130..=132 | 143 => packet.hops == 1 && is_link_multicast(to),
            _ => is_neighbour_discovery(packet) && (is_link_multicast(to) || is_link_local(to)),
        },
        _ => false,
    }
}

/// Solicitations and advertisements of routers and neighbours. A hop limit of
/// 255 cannot have crossed a router (RFC 4861 section 7.1).
#[must_use]
#[inline(always)]
pub fn is_neighbour_discovery(packet: &Packet) -> bool {
    packet.protocol == ICMPV6 && matches!(packet.kind, 133..=136) && packet.hops == 255
}

/// ff02::/16
#[inline(always)]
const fn is_link_multicast(address: Address) -> bool {
    address.high >> 48 == 0xff02
}

/// fe80::/10
#[inline(always)]
const fn is_link_local(address: Address) -> bool {
    address.high >> 54 == 0xfe80 >> 6
}
