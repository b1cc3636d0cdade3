//! Protocols of IP that hold packets.

use super::{End, tunnel};
use crate::lab::{
    battery::{Channel, frame::IPV4},
    probe::Family::{V4, V6},
};

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "ipip",
        "IPv4 in IPv4 (IP protocol 4) to a denied address",
        "ip tunnel mode ipip",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), bare),
    ),
    Channel::stop(
        "sit",
        "IPv6 in IPv4 (IP protocol 41: 6in4, 6to4, ISATAP) to a denied address",
        "ip tunnel mode sit, tunnel brokers",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V6), bare6),
    ),
    Channel::stop(
        "ip6ip",
        "IPv4 in IPv6 (IP protocol 4: DS-Lite) to a denied address",
        "ip -6 tunnel mode ipip6",
        |field, pieces| tunnel(field, pieces, End::Denied, (V6, V4), bare),
    ),
    Channel::stop(
        "ip6ip6",
        "IPv6 in IPv6 (IP protocol 41) to a denied address",
        "ip -6 tunnel mode ip6ip6",
        |field, pieces| tunnel(field, pieces, End::Denied, (V6, V6), bare6),
    ),
    Channel::stop(
        "gre",
        "GRE (IP protocol 47) to a denied address",
        "ip tunnel mode gre, PPTP",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), gre),
    ),
    Channel::stop(
        "gre6",
        "GRE over IPv6 (IP protocol 47) to a denied address",
        "ip -6 tunnel mode ip6gre",
        |field, pieces| tunnel(field, pieces, End::Denied, (V6, V4), gre),
    ),
    Channel::stop(
        "esp",
        "ESP (IP protocol 50), whose content nobody on the way can read to a denied address",
        "IPsec: strongSwan, libreswan",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), esp),
    ),
    Channel::stop(
        "l2tp-ip",
        "L2TPv3 directly over IP (IP protocol 115) to a denied address",
        "ip l2tp add tunnel encap ip",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), l2tp),
    ),
    Channel::stop(
        "mpls-ip",
        "MPLS in IP (IP protocol 137) to a denied address",
        "ip route encap mpls",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), mpls),
    ),
    Channel::stop(
        "etherip",
        "Ethernet in IP (IP protocol 97) to a denied address",
        "EtherIP of BSDs",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), etherip),
    ),
    Channel::stop(
        "ipip-approved",
        "IPv4 in IPv4 (IP protocol 4) to an approved address, with a denied one inside",
        "ip tunnel mode ipip",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), bare),
    ),
    Channel::stop(
        "sit-approved",
        "IPv6 in IPv4 (IP protocol 41: 6in4, 6to4, ISATAP) to an approved address, with a denied one inside",
        "ip tunnel mode sit, tunnel brokers",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V6), bare6),
    ),
    Channel::stop(
        "ip6ip-approved",
        "IPv4 in IPv6 (IP protocol 4: DS-Lite) to an approved address, with a denied one inside",
        "ip -6 tunnel mode ipip6",
        |field, pieces| tunnel(field, pieces, End::Approved, (V6, V4), bare),
    ),
    Channel::stop(
        "ip6ip6-approved",
        "IPv6 in IPv6 (IP protocol 41) to an approved address, with a denied one inside",
        "ip -6 tunnel mode ip6ip6",
        |field, pieces| tunnel(field, pieces, End::Approved, (V6, V6), bare6),
    ),
    Channel::stop(
        "gre-approved",
        "GRE (IP protocol 47) to an approved address, with a denied one inside",
        "ip tunnel mode gre, PPTP",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), gre),
    ),
    Channel::stop(
        "gre6-approved",
        "GRE over IPv6 (IP protocol 47) to an approved address, with a denied one inside",
        "ip -6 tunnel mode ip6gre",
        |field, pieces| tunnel(field, pieces, End::Approved, (V6, V4), gre),
    ),
    Channel::stop(
        "esp-approved",
        "ESP (IP protocol 50), whose content nobody on the way can read to an approved address, with a denied one inside",
        "IPsec: strongSwan, libreswan",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), esp),
    ),
    Channel::stop(
        "l2tp-ip-approved",
        "L2TPv3 directly over IP (IP protocol 115) to an approved address, with a denied one inside",
        "ip l2tp add tunnel encap ip",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), l2tp),
    ),
    Channel::stop(
        "mpls-ip-approved",
        "MPLS in IP (IP protocol 137) to an approved address, with a denied one inside",
        "ip route encap mpls",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), mpls),
    ),
    Channel::stop(
        "etherip-approved",
        "Ethernet in IP (IP protocol 97) to an approved address, with a denied one inside",
        "EtherIP of BSDs",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), etherip),
    ),
];

fn bare(_: usize) -> (u8, Vec<u8>) {
    (4, Vec::new())
}

fn bare6(_: usize) -> (u8, Vec<u8>) {
    (41, Vec::new())
}

/// Without key and sequence number (RFC 2784).
fn gre(_: usize) -> (u8, Vec<u8>) {
    let [high, low] = IPV4.to_be_bytes();
    (47, vec![0, 0, high, low])
}

/// Security parameters index and sequence number (RFC 4303); what follows would be encrypted.
fn esp(_: usize) -> (u8, Vec<u8>) {
    (50, vec![0, 0, 1, 7, 0, 0, 0, 1])
}

/// A session's number (RFC 3931 section 4.1.1).
fn l2tp(_: usize) -> (u8, Vec<u8>) {
    (115, vec![0, 0, 0, 7])
}

/// Explicit null, the bottom of the stack (RFC 4023).
fn mpls(_: usize) -> (u8, Vec<u8>) {
    (137, vec![0, 0, 1, 64])
}

/// Version 3, and an Ethernet header (RFC 3378).
fn etherip(_: usize) -> (u8, Vec<u8>) {
    let ethernet = [2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 7, 8, 0];
    (97, [&[0x30, 0][..], &ethernet].concat())
}
