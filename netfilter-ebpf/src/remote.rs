//! Of which remote addresses anything is known: a Bloom filter (Bloom, CACM 1970) of one hash, so
//! that who sends to all others, or floods them, waits for no look at leases and flows.
//!
//! There are two copies. The programs look into one and mark both, before they store a lease or a
//! flow; marks are never taken away one by one. User space makes the other copy anew when there are too
//! many (`datapath/remotes.rs`). Where nothing is known of what is known, all is marked.

use crate::abi::Address;

/// Marks of one copy: with 4,096 addresses, one of 64 others is looked for in vain.
pub const MARKS: u32 = 1 << 18;
/// Words of one copy.
pub const WORDS: u32 = MARKS / 64;
/// Behind both copies: which of them is looked into, and above that bit how many marks it had
/// when it was made.
pub const STATE: u32 = 2 * WORDS;

/// Word and bit of an address.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "so many bits are left")]
#[inline(always)]
pub const fn place(address: Address) -> (u32, u64) {
    let hash = (address.high ^ address.low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mark = (hash >> (64 - MARKS.ilog2())) as u32;
    (mark / 64, 1 << (mark % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neighbours_have_marks_of_their_own_and_no_mark_is_beyond_the_words() {
        let ipv4 = (0..4096).map(|host| Address::from_ipv4(0xc612_0000 + host));
        let ipv6 = (0..4096).map(|host| Address {
            high: 0x2603_1000_0000_0000,
            low: host,
        });
        for addresses in [ipv4.collect::<Vec<_>>(), ipv6.collect()] {
            let places: HashSet<_> = addresses.into_iter().map(place).collect();
            assert!(places.len() > 4096 * 9 / 10, "{}", places.len());
            assert!(places.iter().all(|(word, _)| *word < WORDS));
        }
    }
}
