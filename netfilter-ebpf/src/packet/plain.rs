//! What nearly every packet is, read with few instructions: TCP or UDP, whole, behind an
//! IPv4 header without options or an IPv6 header without extensions.
#![allow(
    clippy::cast_possible_truncation,
    reason = "parts of words are what is read"
)]

use super::{Bytes, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet, TCP, UDP, segment};
use crate::abi::Address;

/// As [`parse_on`](super::parse_on) reads it behind an Ethernet header without tags, and what
/// `then` makes of it; `None` for whatever is less plain, or wrong. A datagram is as long as its
/// packet says.
///
/// What `then` does is compiled once for each family and protocol, and asks for neither.
#[inline(always)]
pub fn read<B: Bytes + ?Sized, T>(bytes: &B, then: impl FnOnce(Packet) -> Option<T>) -> Option<T> {
    match u16::from_be_bytes(bytes.read(ETHERNET_HEADER - 2)?) {
        ETHERTYPE_IPV4 => ipv4(bytes, then),
        ETHERTYPE_IPV6 => ipv6(bytes, then),
        _ => None,
    }
}

#[inline(always)]
fn ipv4<B: Bytes + ?Sized, T>(bytes: &B, then: impl FnOnce(Packet) -> Option<T>) -> Option<T> {
    const LENGTH: usize = 20;
    // And the ports, which every plain packet has.
    let [first, second, third] = bytes.words(ETHERNET_HEADER)?;
    // Version and length; nothing but "don't fragment" in the word of fragments.
    if first >> 56 != 0x45 || first & 0xffff & !0x4000 != 0 {
        return None;
    }
    let packet = between(
        Address::from_ipv4(second as u32),
        Address::from_ipv4((third >> 32) as u32),
        (second >> 48) as u8,
        (second >> 56) as u8,
        LENGTH,
    );
    let end = ETHERNET_HEADER + part(first >> 32);
    transport(bytes, packet, end, then)
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized, T>(bytes: &B, then: impl FnOnce(Packet) -> Option<T>) -> Option<T> {
    const LENGTH: usize = 40;
    let [first, from_high, from_low, to_high, to_low] = bytes.words(ETHERNET_HEADER)?;
    let address = |high, low| Address { high, low };
    let (source, destination) = (address(from_high, from_low), address(to_high, to_low));
    if first >> 60 != 6 || source.is_ipv4() || destination.is_ipv4() {
        return None;
    }
    let (protocol, hops) = ((first >> 8) as u8, first as u8);
    let packet = between(source, destination, protocol, hops, LENGTH);
    let end = ETHERNET_HEADER + LENGTH + part(first >> 16);
    transport(bytes, packet, end, then)
}

/// The last sixteen bits.
#[inline(always)]
const fn part(word: u64) -> usize {
    word as u16 as usize
}

#[inline(always)]
const fn between(
    source: Address,
    destination: Address,
    protocol: u8,
    hops: u8,
    header: usize,
) -> Packet {
    Packet {
        hops,
        network: ETHERNET_HEADER,
        ..Packet::between(source, destination, protocol, ETHERNET_HEADER + header)
    }
}

#[inline(always)]
fn transport<B: Bytes + ?Sized, T>(
    bytes: &B,
    mut packet: Packet,
    end: usize,
    then: impl FnOnce(Packet) -> Option<T>,
) -> Option<T> {
    // Within the packet lies what is read of it.
    let payload = end.checked_sub(packet.transport)?;
    if end > bytes.length() {
        return None;
    }
    packet.end = end;
    match packet.protocol {
        TCP => {
            let header = bytes.words(packet.transport)?;
            segment(&mut packet, header, payload)?;
            packet.protocol = TCP; // or the compiler has forgotten it
            then(packet)
        }
        UDP => {
            let [header] = bytes.words(packet.transport)?;
            if payload < 8 || part(header >> 16) != payload {
                return None;
            }
            packet.source_port = (header >> 48) as u16;
            packet.destination_port = (header >> 32) as u16;
            packet.protocol = UDP;
            then(packet)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        packet::{Frame, Link, parse_on},
        surplus,
    };

    /// A frame that is plain before `changes` are made to it.
    #[derive(Debug, Clone)]
    struct Draft {
        ipv6: bool,
        protocol: u8,
        data: usize,
        /// Bytes to be overwritten: where, and by what.
        changes: Vec<(usize, u8)>,
        /// Bytes behind the packet, or missing.
        behind: isize,
    }

    impl Draft {
        fn bytes(&self) -> Vec<u8> {
            let header = if self.protocol == TCP { 20 } else { 8 };
            let payload = header + self.data;
            let mut frame = vec![2; 12];
            if self.ipv6 {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
                frame.extend([self.protocol, 64]);
                frame.extend([0x20; 32]);
            } else {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend(u16::try_from(20 + payload).unwrap().to_be_bytes());
                frame.extend([0, 1, 0x40, 0, 64, self.protocol, 0, 0]);
                frame.extend([10, 0, 0, 2, 10, 0, 0, 1]);
            }
            let transport = frame.len();
            frame.resize(transport + payload, 0);
            frame[transport..transport + 4].copy_from_slice(&[0xc0, 1, 1, 187]);
            if self.protocol == TCP {
                frame[transport + 12..transport + 14].copy_from_slice(&[0x50, 0x10]);
            } else {
                let length = u16::try_from(payload).unwrap().to_be_bytes();
                frame[transport + 4..transport + 6].copy_from_slice(&length);
            }
            for &(at, byte) in &self.changes {
                let length = frame.len();
                frame[at % length] = byte;
            }
            let length = frame.len().saturating_add_signed(self.behind);
            frame.resize(length, 0);
            frame
        }
    }

    fn drafts() -> impl Strategy<Value = Draft> {
        let protocol = prop_oneof![4 => Just(TCP), 4 => Just(UDP), 1 => any::<u8>()];
        let byte = prop_oneof![any::<u8>(), (0..8u32).prop_map(|bit| 1 << bit)];
        // Nearly all that is read lies here.
        let changes = prop::collection::vec((12..80usize, byte), 0..4);
        let behind = prop_oneof![6 => Just(0), 1 => -60..0isize, 1 => 1..60isize];
        (any::<bool>(), protocol, 0..50usize, changes, behind).prop_map(
            |(ipv6, protocol, data, changes, behind)| Draft {
                ipv6,
                protocol,
                data,
                changes,
                behind,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_is_plain_is_read_as_it_is_otherwise(draft in drafts()) {
            let frame = draft.bytes();
            if let Some(packet) = read(&frame[..], Some) {
                for link in [Link::Ethernet, Link::Tagged, Link::Bonded] {
                    prop_assert_eq!(parse_on(&frame[..], link), Ok(Frame::Ip(packet)));
                }
                if packet.end == frame.len() {
                    prop_assert_eq!(surplus::check(&frame[..], &packet), Ok(()));
                }
            }
        }
    }

    #[test]
    fn segments_and_datagrams_with_data_and_without_are_plain() {
        for (ipv6, protocol) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
            for data in [0, 1, 1400] {
                for behind in [0, 1] {
                    let draft = Draft {
                        ipv6,
                        protocol,
                        data,
                        changes: Vec::new(),
                        behind,
                    };
                    assert!(read(&draft.bytes()[..], Some).is_some(), "{draft:?}");
                }
            }
        }
    }
}
