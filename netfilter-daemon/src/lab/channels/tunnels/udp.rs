//! Protocols over UDP that hold packets.

use super::{End, tunnel};
use crate::lab::{
    battery::{Channel, frame::UDP},
    probe::Family::{V4, V6},
};

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "vxlan",
        "VXLAN (UDP 4789) to a denied address",
        "ip link type vxlan, container overlays",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), vxlan),
    ),
    Channel::stop(
        "geneve",
        "Geneve (UDP 6081) to a denied address",
        "ip link type geneve, Open vSwitch",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), geneve),
    ),
    Channel::stop(
        "wireguard",
        "WireGuard's data messages (UDP 51820) to a denied address",
        "wg, boringtun, Tailscale",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), wireguard),
    ),
    Channel::stop(
        "wireguard6",
        "WireGuard's data messages over IPv6 (UDP 51820) to a denied address",
        "wg, boringtun, Tailscale",
        |field, pieces| tunnel(field, pieces, End::Denied, (V6, V6), wireguard),
    ),
    Channel::stop(
        "l2tp-udp",
        "L2TP over UDP (1701) to a denied address",
        "xl2tpd, ip l2tp add tunnel encap udp",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), l2tp_udp),
    ),
    Channel::stop(
        "esp-udp",
        "ESP in UDP (4500) to a denied address",
        "IPsec through NAT: strongSwan",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), esp_udp),
    ),
    Channel::stop(
        "fou",
        "IP in UDP (5555) to a denied address",
        "ip fou add port 5555 ipproto 4",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), fou),
    ),
    Channel::stop(
        "gue",
        "Generic UDP encapsulation (6080) to a denied address",
        "ip fou add port 6080 gue",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), gue),
    ),
    Channel::stop(
        "mpls-udp",
        "MPLS in UDP (6635) to a denied address",
        "ip route encap mpls over fou",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), mpls_udp),
    ),
    Channel::stop(
        "teredo",
        "IPv6 in UDP (3544: Teredo) to a denied address",
        "miredo",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V6), teredo),
    ),
    Channel::stop(
        "openvpn",
        "OpenVPN's data messages (UDP 1194) to a denied address",
        "openvpn",
        |field, pieces| tunnel(field, pieces, End::Denied, (V4, V4), openvpn),
    ),
    Channel::stop(
        "vxlan-approved",
        "VXLAN (UDP 4789) to an approved address, with a denied one inside",
        "ip link type vxlan, container overlays",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), vxlan),
    ),
    Channel::stop(
        "geneve-approved",
        "Geneve (UDP 6081) to an approved address, with a denied one inside",
        "ip link type geneve, Open vSwitch",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), geneve),
    ),
    Channel::stop(
        "wireguard-approved",
        "WireGuard's data messages (UDP 51820) to an approved address, with a denied one inside",
        "wg, boringtun, Tailscale",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), wireguard),
    ),
    Channel::stop(
        "wireguard6-approved",
        "WireGuard's data messages over IPv6 (UDP 51820) to an approved address, with a denied one inside",
        "wg, boringtun, Tailscale",
        |field, pieces| tunnel(field, pieces, End::Approved, (V6, V6), wireguard),
    ),
    Channel::stop(
        "l2tp-udp-approved",
        "L2TP over UDP (1701) to an approved address, with a denied one inside",
        "xl2tpd, ip l2tp add tunnel encap udp",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), l2tp_udp),
    ),
    Channel::stop(
        "esp-udp-approved",
        "ESP in UDP (4500) to an approved address, with a denied one inside",
        "IPsec through NAT: strongSwan",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), esp_udp),
    ),
    Channel::stop(
        "fou-approved",
        "IP in UDP (5555) to an approved address, with a denied one inside",
        "ip fou add port 5555 ipproto 4",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), fou),
    ),
    Channel::stop(
        "gue-approved",
        "Generic UDP encapsulation (6080) to an approved address, with a denied one inside",
        "ip fou add port 6080 gue",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), gue),
    ),
    Channel::stop(
        "mpls-udp-approved",
        "MPLS in UDP (6635) to an approved address, with a denied one inside",
        "ip route encap mpls over fou",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), mpls_udp),
    ),
    Channel::stop(
        "teredo-approved",
        "IPv6 in UDP (3544: Teredo) to an approved address, with a denied one inside",
        "miredo",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V6), teredo),
    ),
    Channel::stop(
        "openvpn-approved",
        "OpenVPN's data messages (UDP 1194) to an approved address, with a denied one inside",
        "openvpn",
        |field, pieces| tunnel(field, pieces, End::Approved, (V4, V4), openvpn),
    ),
];

/// A header of UDP to this port before what a protocol begins with and the inner packet.
fn over(port: u16, header: &[u8], inner: usize) -> (u8, Vec<u8>) {
    let length = u16::try_from(8 + header.len() + inner).unwrap_or_default();
    let udp = [40_005, port, length, 0].map(u16::to_be_bytes).concat();
    (UDP, [&udp, header].concat())
}

const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 7, 8, 0];

/// RFC 7348 section 5.
fn vxlan(inner: usize) -> (u8, Vec<u8>) {
    let header = [&[8, 0, 0, 0, 0, 0, 7, 0][..], &ETHERNET].concat();
    over(4789, &header, inner)
}

/// RFC 8926 section 3.4.
fn geneve(inner: usize) -> (u8, Vec<u8>) {
    let header = [&[0, 0, 0x65, 0x58, 0, 0, 7, 0][..], &ETHERNET].concat();
    over(6081, &header, inner)
}

/// Type 4, receiver, counter; what follows would be encrypted.
fn wireguard(inner: usize) -> (u8, Vec<u8>) {
    over(
        51_820,
        &[4, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        inner,
    )
}

/// A data message of version 3 (RFC 3931 section 4.1.2).
fn l2tp_udp(inner: usize) -> (u8, Vec<u8>) {
    over(1701, &[0, 3, 0, 0, 0, 0, 0, 7], inner)
}

/// RFC 3948 section 2.1.
fn esp_udp(inner: usize) -> (u8, Vec<u8>) {
    over(4500, &[0, 0, 1, 7, 0, 0, 0, 1], inner)
}

fn fou(inner: usize) -> (u8, Vec<u8>) {
    over(5555, &[], inner)
}

/// Version 0, data, IPv4 (draft-ietf-intarea-gue).
fn gue(inner: usize) -> (u8, Vec<u8>) {
    over(6080, &[0, 4, 0, 0], inner)
}

/// RFC 7510.
fn mpls_udp(inner: usize) -> (u8, Vec<u8>) {
    over(6635, &[0, 0, 1, 64], inner)
}

/// RFC 4380 section 5.1.1.
fn teredo(inner: usize) -> (u8, Vec<u8>) {
    over(3544, &[], inner)
}

/// P_DATA_V2 of a peer; what follows would be encrypted.
fn openvpn(inner: usize) -> (u8, Vec<u8>) {
    over(1194, &[0x48, 0, 0, 7, 0, 0, 0, 1], inner)
}
