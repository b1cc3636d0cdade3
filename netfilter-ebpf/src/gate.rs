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
    if settings.flags & SETTING_ANY_TYPE != 0 {
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
        for (qtype, passes) in [(28, true), (257, true), (1, false), (28 + 512, false)] {
            assert_eq!(allows_type(&settings, qtype), passes, "{qtype}");
        }
        settings.flags = SETTING_ANY_TYPE;
        assert!(allows_type(&settings, u16::MAX));
    }
}
