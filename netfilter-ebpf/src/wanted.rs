//! Which way a packet is meant that no rule allows: to a place that somebody here wants to
//! reach, or back to somebody who began. The former are told apart by destination, the latter
//! only by what answers, for whoever scans this machine would fill any table with its own
//! addresses.

use crate::{
    abi::{Address, WantedKey},
    packet::{ACK, ICMP, ICMPV6, Packet, RST, SYN, TCP, UDP},
    quote,
};

/// Where Linux takes the ports of those who begin (net.ipv4.ip_local_port_range).
const EPHEMERAL: u16 = 32_768;

const ECHO_REPLY: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Out,
    /// From this port; zero where nothing listens, or of ICMP.
    Answer(u16),
    /// A connection that began before: an answer if its own port has answered others.
    Underway,
}

/// What the packet says by itself.
#[must_use]
#[inline(always)]
pub const fn direction(packet: &Packet) -> Direction {
    match packet.protocol {
        TCP if packet.kind & RST != 0 => Direction::Answer(0),
        TCP if packet.kind & (SYN | ACK) == SYN => Direction::Out,
        TCP if packet.kind & SYN != 0 => Direction::Answer(packet.source_port),
        TCP if is_from_service(packet) => Direction::Answer(packet.source_port),
        TCP => Direction::Underway,
        UDP if is_from_service(packet) => Direction::Answer(packet.source_port),
        ICMP | ICMPV6 if quote::is_error(packet.protocol, packet.kind) => {
            Direction::Answer(packet.kind as u16)
        }
        ICMP if packet.kind == ECHO_REPLY => Direction::Answer(packet.kind as u16),
        ICMPV6 if packet.kind == ECHO_REPLY_V6 => Direction::Answer(packet.kind as u16),
        _ => Direction::Out,
    }
}

/// From a port that is chosen by who serves to one that is chosen by who asks.
const fn is_from_service(packet: &Packet) -> bool {
    packet.source_port < EPHEMERAL && packet.destination_port >= EPHEMERAL
}

#[must_use]
#[inline(always)]
pub const fn destination(packet: &Packet) -> WantedKey {
    WantedKey {
        address: packet.destination,
        port: match packet.protocol {
            TCP | UDP => packet.destination_port,
            _ => 0,
        },
        protocol: packet.protocol,
        answers: 0,
        padding: 0,
    }
}

#[must_use]
#[inline(always)]
pub const fn answer(protocol: u8, port: u16) -> WantedKey {
    WantedKey {
        address: Address { high: 0, low: 0 },
        port,
        protocol,
        answers: 1,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Fragment;

    fn packet(protocol: u8, kind: u8, from: u16, to: u16) -> Packet {
        Packet {
            source: Address::from_ipv4(1),
            destination: Address::from_ipv4(2),
            protocol,
            hops: 64,
            fragment: Fragment::Whole,
            source_port: from,
            destination_port: to,
            kind,
            sequence: 0,
            next: 0,
            acknowledged: 0,
            network: 14,
            transport: 34,
            end: 60,
        }
    }

    #[test]
    fn who_begins_goes_out_and_who_answers_is_told_by_its_own_port() {
        for (protocol, kind, from, to, expected) in [
            (TCP, SYN, 40_000, 443, Direction::Out),
            (TCP, SYN, 22, 50_000, Direction::Out),
            (TCP, SYN | ACK, 8080, 5000, Direction::Answer(8080)),
            (TCP, ACK, 8080, 50_000, Direction::Answer(8080)),
            (TCP, ACK, 40_000, 443, Direction::Underway),
            (TCP, RST | ACK, 81, 5000, Direction::Answer(0)),
            (UDP, 0, 40_000, 443, Direction::Out),
            (UDP, 0, 123, 123, Direction::Out),
            (UDP, 0, 51_820, 51_820, Direction::Out),
            (UDP, 0, 161, 40_000, Direction::Answer(161)),
            (ICMP, 8, 7, 7, Direction::Out),
            (ICMP, 0, 7, 7, Direction::Answer(0)),
            (ICMP, 3, 0, 0, Direction::Answer(3)),
            (ICMPV6, 128, 7, 7, Direction::Out),
            (ICMPV6, 129, 7, 7, Direction::Answer(129)),
            (47, 0, 0, 0, Direction::Out),
        ] {
            let told = direction(&packet(protocol, kind, from, to));
            assert_eq!(told, expected, "{protocol} {kind} {from} {to}");
        }
    }

    #[test]
    fn only_what_has_ports_is_told_apart_by_them() {
        assert_eq!(destination(&packet(UDP, 0, 40_000, 443)).port, 443);
        assert_eq!(destination(&packet(ICMP, 8, 7, 7)).port, 0, "an identifier");
        assert_eq!(answer(TCP, 22).address, Address::default());
    }
}
