//! Protocols and ports, as few rules as say exactly them.

use std::collections::BTreeSet;

use super::Flow;
use crate::policy::{Ports, Protocol, Traffic};

const ICMP: [u8; 2] = [1, 58];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Together they cover exactly the flows, but for ICMP, of which both versions are one.
pub(super) fn of(flows: &BTreeSet<Flow>) -> Vec<Traffic> {
    let ports = |number: u8| -> BTreeSet<u16> {
        let of = flows.iter().filter(|(protocol, _)| *protocol == number);
        of.map(|(_, port)| *port).collect()
    };
    let (tcp, udp) = (ports(TCP), ports(UDP));
    let mut all = Vec::new();
    if tcp == udp && !tcp.is_empty() {
        all.extend(Traffic::new(Protocol::Any, Ports::of(tcp)));
    } else {
        if !tcp.is_empty() {
            all.push(Traffic::tcp(tcp));
        }
        if !udp.is_empty() {
            all.push(Traffic::udp(udp));
        }
    }
    let others = flows.iter().map(|(protocol, _)| *protocol);
    let others: BTreeSet<u8> = others
        .filter(|number| ![TCP, UDP].contains(number))
        .collect();
    if others.iter().any(|number| ICMP.contains(number)) {
        all.extend(Traffic::new(Protocol::Icmp, Ports::All));
    }
    for number in others.into_iter().filter(|number| !ICMP.contains(number)) {
        all.extend(Traffic::new(Protocol::Number(number), Ports::All));
    }
    all
}

/// How many ranges of ports it tells apart.
pub(super) fn ports(traffic: &Traffic) -> usize {
    match traffic.ports() {
        Ports::All => 0,
        Ports::Ranges(ranges) => ranges.len(),
    }
}
