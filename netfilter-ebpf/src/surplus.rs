//! What a packet that leaves may hold beside what it says: nothing that could carry
//! data. Of all options only the router alerts are needed, by IGMP and MLD.

use crate::{
    packet::{Bytes, Fragment, Packet, UDP},
    verdict::{Family, Reason},
};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;

/// Bytes that a frame has at least behind its header, and its tags (IEEE 802.3).
pub const SHORTEST: usize = 46;

/// Looks at what nobody needs to read: options, extension headers, and bytes behind
/// the datagram and the packet.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn check<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Result<(), Reason> {
    let network = B::widen(packet.network);
    let bare = match packet.family() {
        Family::Ipv4 => has_bare_ipv4(bytes, network, packet.transport - packet.network),
        _ => has_bare_ipv6(bytes, network, packet.transport - packet.network),
    };
    if bare && ends_with_datagram(bytes, packet) && is_padding(bytes, packet.end, network) {
        Ok(())
    } else {
        Err(Reason::Surplus)
    }
}

/// No options, or a router alert as RFC 2113 has it.
#[inline(always)]
fn has_bare_ipv4<B: Bytes + ?Sized>(bytes: &B, network: usize, length: usize) -> bool {
    length == IPV4_HEADER
        || (length == IPV4_HEADER + 4 && bytes.read(network + IPV4_HEADER) == Some([148, 4, 0, 0]))
}

/// No extension headers, or a fragment header, or a router alert (RFC 2711) for MLD,
/// with the padding that it needs on one side or the other.
#[inline(always)]
fn has_bare_ipv6<B: Bytes + ?Sized>(bytes: &B, network: usize, length: usize) -> bool {
    if length == IPV6_HEADER {
        return true;
    }
    let (Some([first]), Some(header)) = (
        bytes.read(network + 6),
        bytes.read::<8>(network + IPV6_HEADER),
    ) else {
        return false;
    };
    length == IPV6_HEADER + 8
        && match (first, header) {
            (HOP_BY_HOP, [_, 0, 5, 2, 0, 0, 1, 0] | [_, 0, 1, 0, 5, 2, 0, 0]) => true,
            // Reserved are a byte and two bits (RFC 8200 section 4.5).
            (FRAGMENT, [_, 0, _, field, ..]) => field & 6 == 0,
            _ => false,
        }
}

/// RFC 9868 puts options behind a datagram, where others do not look.
#[inline(always)]
fn ends_with_datagram<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> bool {
    if packet.protocol != UDP || !matches!(packet.fragment, Fragment::Whole) {
        return true;
    }
    let length = bytes.read(B::widen(packet.transport) + 4);
    length.map(|length| usize::from(u16::from_be_bytes(length)))
        == Some(packet.end - packet.transport)
}

/// Whether from `end` on there is nothing but the zeros that make a frame of a
/// short packet, which begins at `network`: those of bridges come padded.
#[inline(always)]
pub fn is_padding<B: Bytes + ?Sized>(bytes: &B, end: usize, network: usize) -> bool {
    let length = bytes.length();
    if length > end && length > network + SHORTEST {
        return false;
    }
    for index in 0..SHORTEST - IPV4_HEADER {
        let at = B::widen(end + index);
        if at >= length {
            return true;
        }
        if bytes.read(at) != Some([0]) {
            return false;
        }
    }
    end + SHORTEST - IPV4_HEADER >= length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, Frame};

    const IPV4: [u8; 42] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0,
        0, 2, 10, 0, 0, 1, 0, 7, 0, 9, 0, 8, 0, 0,
    ];

    fn judge(frame: &[u8]) -> Result<(), Reason> {
        match packet::parse(frame) {
            Ok(Frame::Ip(packet)) => check(frame, &packet),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn padding_is_zeros_up_to_the_shortest_frame() {
        let padded = |to: usize| {
            let mut frame = IPV4.to_vec();
            frame.resize(to, 0);
            frame
        };
        for length in IPV4.len()..=60 {
            assert_eq!(judge(&padded(length)), Ok(()), "{length}");
        }
        for length in [61, 64, 700, 2000] {
            assert_eq!(judge(&padded(length)), Err(Reason::Surplus), "{length}");
        }
        for at in IPV4.len()..60 {
            let mut frame = padded(60);
            frame[at] = 1;
            assert_eq!(judge(&frame), Err(Reason::Surplus), "{at}");
        }
    }

    #[test]
    fn a_datagram_ends_where_its_packet_does() {
        let with = |bytes: usize, datagram: u8| {
            let mut frame = IPV4.to_vec();
            frame.resize(IPV4.len() + bytes, 0);
            frame[17] = u8::try_from(28 + bytes).unwrap();
            frame[39] = datagram;
            frame
        };
        assert_eq!(judge(&with(40, 48)), Ok(()));
        assert_eq!(judge(&with(40, 47)), Err(Reason::Surplus));
        assert_eq!(judge(&with(40, 8)), Err(Reason::Surplus));
        // The length is that of the datagram, not of its first fragment.
        let mut first = with(40, 200);
        first[20] = 0x20;
        assert_eq!(judge(&first), Ok(()));
    }

    #[test]
    fn what_is_no_datagram_has_no_length_of_its_own() {
        let mut tcp = IPV4.to_vec();
        tcp[23] = 6;
        tcp[17] = 40;
        tcp.resize(34 + 20, 0);
        tcp[46] = 0x50;
        assert_eq!(judge(&tcp), Ok(()));
        // A header alone, of a protocol without one, takes the most padding.
        let mut alone = IPV4[..34].to_vec();
        alone[23] = 99;
        alone[17] = 20;
        alone.resize(60, 0);
        assert_eq!(judge(&alone), Ok(()));
        alone[59] = 1;
        assert_eq!(judge(&alone), Err(Reason::Surplus));
    }

    #[test]
    fn of_ipv4_options_only_a_router_alert_leaves() {
        let with = |options: &[u8]| {
            let mut frame = IPV4.to_vec();
            frame.splice(34..34, options.iter().copied());
            frame[14] += u8::try_from(options.len() / 4).unwrap();
            frame[17] += u8::try_from(options.len()).unwrap();
            judge(&frame)
        };
        assert_eq!(with(&[148, 4, 0, 0]), Ok(()));
        for other in [
            &[148, 4, 0, 1][..],
            &[148, 4, 0, 0, 0, 0, 0, 0],
            &[1, 148, 4, 0, 0, 0, 0, 0],
            &[0; 4],
            &[1; 4],
            &[1; 40],
            &[7, 7, 4, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(with(other), Err(Reason::Surplus), "{other:?}");
        }
    }

    #[test]
    fn of_extension_headers_fragments_and_a_router_alert_leave() {
        let with = |first: u8, headers: &[u8]| {
            let mut frame = [&IPV4[..12], &[0x86, 0xdd, 0x60, 0, 0, 0, 0]].concat();
            frame.extend([u8::try_from(headers.len() + 8).unwrap(), first, 64]);
            frame.extend([0x20; 32]);
            frame.extend(headers);
            frame.extend(&IPV4[34..]);
            judge(&frame)
        };
        assert_eq!(with(17, &[]), Ok(()));
        for alert in [[17, 0, 5, 2, 0, 0, 1, 0], [17, 0, 1, 0, 5, 2, 0, 0]] {
            assert_eq!(with(0, &alert), Ok(()));
            assert_eq!(with(60, &alert), Err(Reason::Surplus));
            for at in 2..8 {
                let mut other = alert;
                other[at] ^= 2;
                assert_eq!(with(0, &other), Err(Reason::Surplus), "{at}");
            }
        }
        assert_eq!(with(44, &[17, 0, 0, 0, 1, 2, 3, 4]), Ok(()));
        assert_eq!(with(44, &[17, 0, 0, 1, 1, 2, 3, 4]), Ok(()));
        for reserved in [[17, 1, 0, 0], [17, 0, 0, 2], [17, 0, 0, 4]] {
            let header = [&reserved[..], &[1, 2, 3, 4]].concat();
            assert_eq!(with(44, &header), Err(Reason::Surplus), "{reserved:?}");
        }
        let twice = [[60, 0, 1, 4, 0, 0, 0, 0], [17, 0, 1, 4, 0, 0, 0, 0]];
        assert_eq!(with(60, &twice.concat()), Err(Reason::Surplus));
        let behind = [[60, 0, 0, 1, 1, 2, 3, 4], [17, 0, 1, 4, 0, 0, 0, 0]];
        assert_eq!(with(44, &behind.concat()), Err(Reason::Surplus));
    }
}
