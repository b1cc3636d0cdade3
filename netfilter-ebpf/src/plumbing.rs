//! What a machine must say to live on its network: to the addresses where it belongs,
//! in exactly the form that real software gives it, and nothing else.
//!
//! What is left free in it (a transaction id, a host name, the address of a neighbour) is
//! bounded by rates; see [`Kind::rate`]. What is of another form is judged by the rules.

use crate::{
    abi::Address,
    packet::{Bytes, ETHERNET_HEADER, Fragment, ICMPV6, IGMP, Packet, UDP},
};

mod dhcp;
mod group;
mod neighbour;

/// Who speaks; zero is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A DHCP or DHCPv6 client that looks for servers.
    Dhcp = 1,
    /// Solicitations of routers and neighbours, and a neighbour's advertisements.
    Neighbour = 2,
    /// Reports of multicast groups: IGMP and MLD.
    Group = 3,
}

/// Kinds, and nobody.
pub const KINDS: u32 = 4;

/// A message of plumbing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plumbing {
    pub kind: Kind,
    /// What it takes of the rate: one, or the addresses that it has room for.
    pub costs: u32,
}

impl Kind {
    /// What an interface may say in a minute, and at once after silence.
    ///
    /// DHCP: a dozen machines behind a bridge that start together. Neighbours: 600 that
    /// are all in use are asked for every 30 seconds (RFC 4861 section 10). Groups: 300
    /// are reported again at each query, every 125 seconds (RFC 3810 section 9).
    #[must_use]
    #[inline(always)]
    pub const fn rate(self) -> (u32, u32) {
        match self {
            Self::Dhcp => (30, 30),
            Self::Neighbour => (1200, 200),
            Self::Group => (150, 300),
        }
    }

    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Dhcp),
            2 => Some(Self::Neighbour),
            3 => Some(Self::Group),
            _ => None,
        }
    }
}

/// Whether the addresses, ports and types are those of plumbing. Its content is to be [`read`] then.
///
/// Whoever is on the link hears what goes to everybody, so DHCP may go to each of them: see
/// [`is_on_link`] and [`ATOM_LINK`](crate::abi::ATOM_LINK) for who that is.
#[must_use]
#[inline(always)]
pub const fn kind(packet: &Packet) -> Option<Kind> {
    if !matches!(packet.fragment, Fragment::Whole) {
        return None;
    }
    let to = packet.destination;
    match packet.protocol {
        UDP => match (packet.source_port, packet.destination_port) {
            // A lease is renewed where it came from (RFC 2131 section 4.4.5).
            (68, 67) if to.is_ipv4() && !is_multicast(to) => Some(Kind::Dhcp),
            (546, 547) if is_everybody(to) => Some(Kind::Dhcp),
            _ => None,
        },
        IGMP if packet.hops == 1 => Some(Kind::Group),
        ICMPV6 if !to.is_ipv4() => match (packet.kind, packet.hops) {
            // A hop limit of 255 cannot have crossed a router (RFC 4861 section 7.1).
            (133 | 135 | 136, 255) => Some(Kind::Neighbour),
            // Reports of versions 1 and 2, and done (RFC 2710, RFC 3810).
            (131 | 132 | 143, 1) => Some(Kind::Group),
            _ => None,
        },
        _ => None,
    }
}

/// Reads a packet whose [`kind`] is one of plumbing. `None` where its form is another.
///
/// A client of DHCPv6 renews by multicast, unless its server says otherwise (RFC 8415
/// section 21.12): that unicast needs a rule.
#[must_use]
#[inline(always)]
pub fn read<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Option<Plumbing> {
    let kind = kind(packet)?;
    let ends = packet.end == bytes.length() || kind == Kind::Group && is_padded(bytes, packet.end);
    if !ends {
        return None;
    }
    let costs = match kind {
        Kind::Dhcp if packet.destination.is_ipv4() => dhcp::ipv4(bytes, packet).then_some(1)?,
        Kind::Dhcp => dhcp::ipv6(bytes, packet).then_some(1)?,
        Kind::Neighbour => neighbour::read(bytes, packet).then_some(1)?,
        Kind::Group if packet.destination.is_ipv4() => group::igmp(bytes, packet)?,
        Kind::Group => group::mld(bytes, packet)?,
    };
    Some(Plumbing { kind, costs })
}

/// Whether it goes to everybody, or to one on the link, whatever rules say.
#[must_use]
#[inline(always)]
pub const fn is_on_link(to: Address) -> bool {
    is_everybody(to) || is_multicast(to) || is_link_local(to)
}

/// 255.255.255.255, and ff02::1:2, all DHCP relay agents and servers (RFC 8415 section 7.1).
#[inline(always)]
const fn is_everybody(to: Address) -> bool {
    matches!(
        (to.high, to.low),
        (0, 0xffff_ffff_ffff) | (0xff02_0000_0000_0000, 0x1_0002)
    )
}

/// 224.0.0.0/4 and ff00::/8.
#[inline(always)]
const fn is_multicast(address: Address) -> bool {
    address.high >> 56 == 0xff || address.is_ipv4() && address.low >> 28 & 0xf == 0xe
}

/// fe80::/10, and 169.254.0.0/16, where clouds have their DHCP servers.
#[inline(always)]
const fn is_link_local(address: Address) -> bool {
    address.high >> 54 == 0xfe80 >> 6 || address.is_ipv4() && address.low >> 16 & 0xffff == 0xa9fe
}

/// `::`
#[inline(always)]
const fn is_unspecified(address: Address) -> bool {
    address.high == 0 && address.low == 0
}

/// Who sends the frame; `None` where frames have no addresses.
#[inline(always)]
fn hardware<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Option<[u8; 6]> {
    if packet.network < ETHERNET_HEADER {
        return None;
    }
    bytes.read(6)
}

/// Whether nothing but zeros fills a short frame up to the least that cards send: a
/// bridge passes on what it has received.
#[inline(always)]
fn is_padded<B: Bytes + ?Sized>(bytes: &B, from: usize) -> bool {
    const LEAST: usize = 60;
    bytes.length() == LEAST && is_zero(bytes, from, LEAST)
}

/// Whether there are only zeros from one offset to the other, of which there are no more
/// than 640 bytes.
#[inline(always)]
fn is_zero<B: Bytes + ?Sized>(bytes: &B, mut at: usize, end: usize) -> bool {
    const WORDS: usize = 640 / 8;
    for _ in 0..WORDS {
        at = B::widen(at);
        if at + 8 > end {
            break;
        }
        if bytes.read(at) != Some([0; 8]) {
            return false;
        }
        at += 8;
    }
    for _ in 0..8 {
        at = B::widen(at);
        if at >= end {
            return true;
        }
        if bytes.read(at) != Some([0]) {
            return false;
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests;
