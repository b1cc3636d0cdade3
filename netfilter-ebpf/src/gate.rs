//! What a question may be, beyond its name: its type, its length, and how
//! often a wildcard may be asked for names that were never asked before.

use crate::{
    abi::{QUERY_TYPES, SETTING_ANY_TYPE, Settings},
    packet::Packet,
};

/// Ethernet's shortest frame, without its checksum: what is shorter is filled up.
const SHORTEST_FRAME: usize = 60;

/// Whether a packet to a resolver is nothing but what will be read of it: no options, no
/// extension headers, and in a frame of `length` bytes no more than Ethernet adds.
#[must_use]
#[inline(always)]
pub const fn is_bare(packet: &Packet, length: usize) -> bool {
    let header = if packet.destination.is_ipv4() { 20 } else { 40 };
    packet.transport == packet.network + header
        && (packet.end == length || length <= SHORTEST_FRAME)
}

/// Whether questions of this type (QTYPE) may go out.
#[must_use]
#[inline(always)]
pub const fn allows_type(settings: &Settings, qtype: u16) -> bool {
    if settings.has(SETTING_ANY_TYPE) {
        return true;
    }
    // Masked, for the verifier.
    let word = settings.query_types[(qtype >> 6) as usize & (QUERY_TYPES / 64 - 1)];
    (qtype as usize) < QUERY_TYPES && word >> (qtype & 63) & 1 == 1
}

/// The new names that a wildcard may still be asked for, as one word that is
/// replaced whole: the time of the last question (seconds, high half) and what
/// was left then, in sixtieths of a name (low half).
pub type Bucket = u64;

/// Takes one name out of a bucket that gets `per_minute` in a minute and holds
/// as many. `None` where it is empty.
#[must_use]
#[inline(always)]
pub const fn spend(bucket: Bucket, now: u32, per_minute: u32) -> Option<Bucket> {
    take(bucket, now, per_minute, per_minute, 1)
}

/// Takes `many` out of a bucket that gets `per_minute` and holds `full`. `None` where
/// there are fewer.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves; bounded by `full`")]
pub const fn take(
    bucket: Bucket,
    now: u32,
    per_minute: u32,
    full: u32,
    many: u32,
) -> Option<Bucket> {
    const ONE: u64 = 60;
    let full = full as u64 * ONE;
    let (last, left) = ((bucket >> 32) as u32, bucket as u32 as u64);
    let gained = now.saturating_sub(last) as u64 * per_minute as u64;
    let left = if left + gained > full {
        full
    } else {
        left + gained
    };
    let taken = many as u64 * ONE;
    if left < taken {
        return None;
    }
    Some((now as u64) << 32 | (left - taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frame, parse};

    #[test]
    fn a_bare_packet_has_nothing_between_nor_behind_but_what_ethernet_adds() {
        let is_bare = |ipv4: bool, options: &[u8], payload: usize, more: usize| {
            let mut frame = vec![2; 12];
            let length = u8::try_from(options.len() + payload).unwrap();
            if ipv4 {
                let words = 0x45 + u8::try_from(options.len() / 4).unwrap();
                frame.extend([8, 0, words, 0, 0, 20 + length, 0, 0, 0, 0, 64, 17, 0, 0]);
                frame.extend([10, 0, 0, 2, 10, 0, 0, 1]);
            } else {
                let next = if options.is_empty() { 17 } else { 0 };
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, next, 64]);
                frame.extend([0x20; 32]);
            }
            frame.extend(options);
            frame.extend([0, 0, 0, 0, 0, u8::try_from(payload).unwrap()]);
            frame.extend(vec![0; payload - 6 + more]);
            match parse(&frame[..]) {
                Ok(Frame::Ip(packet)) => super::is_bare(&packet, frame.len()),
                other => panic!("{other:?}"),
            }
        };
        for ipv4 in [true, false] {
            assert!(is_bare(ipv4, &[], 40, 0) && !is_bare(ipv4, &[], 40, 1));
        }
        assert!(!is_bare(true, &[148, 4, 0, 0], 40, 0));
        assert!(!is_bare(false, &[17, 0, 5, 2, 0, 0, 1, 0], 40, 0));
        // 34 bytes of headers and 8 of UDP.
        assert!(is_bare(true, &[], 8, 18) && !is_bare(true, &[], 8, 19));
    }

    /// Names that pass of a flood that lasts `seconds`.
    fn passed(bucket: &mut Bucket, seconds: core::ops::Range<u32>, per_minute: u32) -> u32 {
        let mut passed = 0;
        for now in seconds {
            for _ in 0..1000 {
                if let Some(left) = spend(*bucket, now, per_minute) {
                    *bucket = left;
                    passed += 1;
                }
            }
        }
        passed
    }

    #[test]
    fn a_flood_gets_one_full_bucket_and_then_the_rate() {
        let mut bucket = 0;
        assert_eq!(passed(&mut bucket, 1000..1001, 30), 30);
        assert_eq!(passed(&mut bucket, 1001..1061, 30), 30);
        assert_eq!(passed(&mut bucket, 5000..5001, 30), 30, "no more than full");
    }

    #[test]
    fn none_at_all_is_none_and_the_largest_rate_does_not_overflow() {
        assert_eq!(spend(0, 1000, 0), None);
        assert!(spend(0, u32::MAX, 1_000_000).is_some());
        assert!(spend(u64::MAX, u32::MAX, 1_000_000).is_some());
    }

    #[test]
    fn a_clock_that_is_behind_gains_nothing() {
        let empty = 1001 << 32;
        assert_eq!(spend(empty, 1000, 60), None);
        assert_eq!(spend(empty, 1001, 60), None);
        assert!(spend(empty, 1002, 60).is_some());
    }

    #[test]
    fn what_takes_several_takes_them_or_none() {
        let full = take(0, 1000, 150, 300, 200);
        assert_eq!(full.map(|left| take(left, 1000, 150, 300, 101)), Some(None));
        assert!(
            full.and_then(|left| take(left, 1000, 150, 300, 100))
                .is_some()
        );
        assert!(
            full.and_then(|left| take(left, 1060, 150, 300, 250))
                .is_some()
        );
        assert_eq!(take(0, u32::MAX, 150, 300, 301), None, "more than it holds");
    }

    #[test]
    fn a_type_passes_if_it_is_listed_or_all_are() {
        let mut settings = Settings::default();
        settings.query_types[28 / 64] |= 1 << 28;
        settings.query_types[257 / 64] |= 1 << (257 % 64);
        settings.query_types[0] |= 1 << 43 | 1;
        for qtype in 0..=u16::MAX {
            let passes = matches!(qtype, 0 | 28 | 43 | 257);
            assert_eq!(allows_type(&settings, qtype), passes, "{qtype}");
        }
        settings.flags = SETTING_ANY_TYPE;
        assert!(allows_type(&settings, u16::MAX));
    }
}
