//! Sockets that hand over whole frames, to tc or past it.

use crate::lab::{
    battery::Channel,
    raw::{bypass, xsk},
};

use super::frames;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "packet-socket",
        "frames by an ordinary packet socket, which no rule of iptables sees",
        "scapy, nping, libpcap's injection",
        |field, pieces| {
            let mut sender = bypass::ordinary(&field.interface)?;
            frames(field, pieces, |frame| sender.send(&frame))
        },
    ),
    Channel::stop(
        "packet-bypass",
        "frames by a packet socket with PACKET_QDISC_BYPASS, which tc does not see",
        "trafgen, TRex, dpdk's af_packet driver",
        |field, pieces| {
            let mut sender = bypass::open(&field.interface)?;
            frames(field, pieces, |frame| sender.send(&frame))
        },
    ),
    Channel::stop(
        "packet-ring",
        "frames in the memory of PACKET_TX_RING, with PACKET_QDISC_BYPASS",
        "netsniff-ng, zmap",
        |field, pieces| {
            let mut sender = bypass::ring(&field.interface)?;
            frames(field, pieces, |frame| sender.send(&frame))
        },
    ),
    Channel::stop(
        "af-xdp",
        "frames in the memory of an AF_XDP socket, which the driver takes from there",
        "dpdk's af_xdp driver, xdp-trafgen, masscan forks",
        |field, pieces| {
            let mut sender = xsk::open(&field.interface)?;
            frames(field, pieces, |frame| sender.send(&frame))
        },
    ),
];
