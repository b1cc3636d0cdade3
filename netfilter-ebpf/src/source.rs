//! How often what is denied is reported: so that one who is denied a thousand times a
//! second does not drown what others are denied once.
//!
//! A packet belongs to a *party* that its sender cannot choose (user and cgroup of the
//! socket; without one, the interface it came by), and within it to a *member* (process;
//! address, of IPv6 the first 64 bits). Each has a bucket, found by its keyed hash, and a
//! report takes a token of both and one of what all parties have together. The last half
//! of that is for parties that have all their tokens: who has been silent is heard.
//!
//! Tokens come once a second. A socket whose sender found none is not told of again in that
//! second, whoever uses it ([`Silence`]): who floods is not looked for anew with each packet.

use crate::{
    abi::{Address, Who},
    gate::{self, Bucket},
};

/// Buckets of parties, and as many of members.
const SLOTS: u32 = 1024;
/// All buckets: the first is that of all together.
pub const PLACES: u32 = 1 + 2 * SLOTS;
pub const ALL: u32 = 0;

/// A bucket, and how often it was empty since it last was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Source {
    pub bucket: Bucket,
    pub untold: u64,
}

/// Which socket is not told of for the rest of a second, of each processor one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Silence {
    /// Its cookie (SO_COOKIE); zero is nobody's.
    pub socket: u64,
    /// Of CLOCK_BOOTTIME.
    pub second: u32,
    /// The place where it counts what is not told.
    pub place: u32,
}

impl Silence {
    /// Whether it is about this socket, now.
    #[must_use]
    #[inline(always)]
    pub const fn covers(&self, socket: u64, now: u32) -> bool {
        socket != 0 && self.socket == socket && self.second == now
    }
}

/// Reports per minute, and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub per_minute: u32,
    pub at_once: u32,
}

pub const MEMBER: Pace = Pace {
    per_minute: 120,
    at_once: 150,
};
pub const PARTY: Pace = Pace {
    per_minute: 600,
    at_once: 600,
};
pub const TOGETHER: Pace = Pace {
    per_minute: 6_000,
    at_once: 2_400,
};

impl Pace {
    /// What a bucket is after `1` was taken. `None` where not more than `reserve` are left.
    #[must_use]
    #[inline(always)]
    pub const fn take(self, bucket: Bucket, now: u32, reserve: u32) -> Option<Bucket> {
        // Where the rest would be below the reserve, nothing is taken.
        if gate::take(bucket, now, self.per_minute, self.at_once, reserve + 1).is_none() {
            return None;
        }
        gate::take(bucket, now, self.per_minute, self.at_once, 1)
    }

    /// Whether nothing was taken lately.
    #[must_use]
    #[inline(always)]
    pub const fn is_full(self, bucket: Bucket, now: u32) -> bool {
        gate::take(bucket, now, self.per_minute, self.at_once, self.at_once).is_some()
    }
}

/// What is left of all for parties that have been silent.
pub const RESERVE: u32 = TOGETHER.at_once / 2;

/// Places of the party and of the member of a packet. `address`: its source.
#[must_use]
#[inline(always)]
pub fn places(who: &Who, interface: u32, address: Address, seed: u64) -> (u32, u32) {
    let (party, member) = if who.moment == 0 {
        let network = if address.is_ipv4() {
            address.low
        } else {
            address.high
        };
        (mix(seed, interface as u64 | 1 << 63), network)
    } else {
        (
            mix(mix(seed, who.cgroup_id), who.user as u64),
            who.process as u64 ^ who.started,
        )
    };
    let slot = |hash: u64| (hash >> 32) as u32 % SLOTS;
    (1 + slot(party), 1 + SLOTS + slot(mix(party, member)))
}

/// The finalizer of SplitMix64, over the sum of both.
#[inline(always)]
const fn mix(seed: u64, word: u64) -> u64 {
    let mut hash = seed.wrapping_add(word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Moment;

    fn process(process: u32, user: u32, cgroup_id: u64) -> Who {
        Who {
            process,
            user,
            cgroup_id,
            moment: Moment::Connect as u8,
            ..Who::NOBODY
        }
    }

    const NOWHERE: Address = Address { high: 0, low: 0 };

    #[test]
    fn processes_of_a_user_and_cgroup_are_members_of_a_party() {
        let place = |who: &Who| places(who, 2, NOWHERE, 7);
        let (party, member) = place(&process(10, 0, 5));
        let (same, other) = place(&process(11, 0, 5));
        assert_eq!(party, same);
        assert_ne!(member, other);
        assert_ne!(place(&process(10, 1, 5)).0, party);
        assert_ne!(place(&process(10, 0, 6)).0, party);
        // What a sender writes into its packets changes nothing.
        let forged = Address::from_ipv4(0x0102_0304);
        assert_eq!(places(&process(10, 0, 5), 2, forged, 7), (party, member));
    }

    #[test]
    fn without_a_socket_the_interface_is_the_party_and_the_network_the_member() {
        let place = |interface, address| places(&Who::NOBODY, interface, address, 7);
        let v6 = |last| {
            let mut bytes = [0x20; 16];
            bytes[15] = last;
            Address::from_ipv6(bytes)
        };
        assert_eq!(place(3, v6(1)), place(3, v6(2)), "of one /64");
        let (party, member) = place(3, Address::from_ipv4(1));
        assert_eq!(place(3, Address::from_ipv4(2)).0, party);
        assert_ne!(place(3, Address::from_ipv4(2)).1, member);
        assert_ne!(place(4, Address::from_ipv4(1)).0, party);
    }

    #[test]
    fn places_are_within_the_table_and_kinds_do_not_mix() {
        for number in 0..10_000u32 {
            let (party, member) = places(&process(number, number, 1), 2, NOWHERE, 9);
            assert!((1..=SLOTS).contains(&party), "{party}");
            assert!((SLOTS + 1..PLACES).contains(&member), "{member}");
        }
    }

    #[test]
    fn who_finds_no_token_finds_none_before_the_next_second() {
        for pace in [MEMBER, PARTY, TOGETHER] {
            let mut bucket = 0;
            while let Some(left) = pace.take(bucket, 1000, 0) {
                bucket = left;
            }
            assert_eq!(pace.take(bucket, 1000, 0), None);
            assert!(pace.take(bucket, 1001, 0).is_some());
        }
        let silence = Silence {
            socket: 7,
            second: 1000,
            place: 1,
        };
        assert!(silence.covers(7, 1000) && !silence.covers(7, 1001) && !silence.covers(8, 1000));
        assert!(!Silence::default().covers(0, 0), "none has no socket");
    }

    #[test]
    fn the_reserve_is_for_those_who_have_been_silent() {
        let mut bucket = 0;
        let mut told = 0;
        while let Some(left) = TOGETHER.take(bucket, 1000, RESERVE) {
            bucket = left;
            told += 1;
        }
        assert_eq!(told, TOGETHER.at_once - RESERVE);
        assert!(TOGETHER.take(bucket, 1000, 0).is_some());
        assert!(PARTY.is_full(0, 1000));
        let spent = PARTY.take(0, 1000, 0).unwrap();
        assert!(!PARTY.is_full(spent, 1000) && PARTY.is_full(spent, 1001));
    }
}
