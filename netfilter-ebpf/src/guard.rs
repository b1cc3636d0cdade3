//! What would let a socket send past tc, and who may have it.
//!
//! In the kernel's sources two functions hand frames to a driver without asking tc:
//! `packet_direct_xmit` (net/packet/af_packet.c), which PACKET_QDISC_BYPASS chooses for a
//! packet socket and its rings, and the transmit paths of AF_XDP (net/xdp/xsk.c). No flag of
//! a single message does.

use crate::{
    abi::{SETTING_LIFTED, SETTING_REPORT, Settings, Users},
    verdict::Way,
};

// linux/socket.h and linux/if_packet.h
const SOL_PACKET: i32 = 263;
const SOL_XDP: i32 = 283;
const PACKET_QDISC_BYPASS: i32 = 20;

/// The way past tc that an option of setsockopt(2) opens. `value`: that of four bytes; `None`
/// for any other length, which the kernel refuses.
///
/// Of AF_XDP each option is one: without a ring, which takes an option, a socket can neither
/// be bound nor send.
#[must_use]
#[inline(always)]
pub const fn way(level: i32, option: i32, value: Option<u32>) -> Option<Way> {
    match (level, option, value) {
        (SOL_XDP, ..) => Some(Way::Xdp),
        (SOL_PACKET, PACKET_QDISC_BYPASS, Some(0)) => None,
        (SOL_PACKET, PACKET_QDISC_BYPASS, _) => Some(Way::QdiscBypass),
        _ => None,
    }
}

/// What becomes of a request for such a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    Grant,
    /// Granted, and counted as what would have been refused.
    Audit,
    Refuse,
}

/// Root is a user as any other.
#[inline(always)]
pub const fn answer(settings: &Settings, users: &Users, user: u32) -> Answer {
    if settings.has(SETTING_LIFTED) || users.contains(user) {
        Answer::Grant
    } else if settings.has(SETTING_REPORT) {
        Answer::Audit
    } else {
        Answer::Refuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::USERS;

    #[test]
    fn a_way_past_tc_is_seen_and_its_neighbours_are_not() {
        // As the kernel numbers them.
        let bypass = |value| way(263, 20, value);
        for value in [Some(1), Some(0x100), Some(u32::MAX), None] {
            assert_eq!(bypass(value), Some(Way::QdiscBypass), "{value:?}");
        }
        assert_eq!(bypass(Some(0)), None, "switched off");
        for option in -1..=64 {
            for value in [Some(64), Some(0), None] {
                assert_eq!(way(283, option, value), Some(Way::Xdp), "{option}");
            }
        }
        for (level, option) in [
            (SOL_PACKET, 19),
            (SOL_PACKET, 21),
            (SOL_PACKET - 1, 20),
            (SOL_XDP + 1, 3),
            (6, 20),
            (0, 20),
        ] {
            assert_eq!(way(level, option, Some(1)), None, "{level} {option}");
        }
    }

    #[test]
    fn all_but_named_users_are_refused_and_root_is_none_of_them() {
        let settings = |flags| Settings {
            flags,
            ..Settings::default()
        };
        let users = Users::of(&[1001, 7]);
        let enforcing = settings(0);
        for (user, expected) in [
            (0, Answer::Refuse),
            (1000, Answer::Refuse),
            (1001, Answer::Grant),
            (7, Answer::Grant),
        ] {
            assert_eq!(answer(&enforcing, &users, user), expected, "{user}");
        }
        assert_eq!(answer(&enforcing, &Users::of(&[]), 0), Answer::Refuse);
        assert_eq!(answer(&enforcing, &Users::of(&[0]), 0), Answer::Grant);
        assert_eq!(answer(&settings(SETTING_REPORT), &users, 0), Answer::Audit);
        assert_eq!(answer(&settings(SETTING_REPORT), &users, 7), Answer::Grant);
        let lifted = settings(SETTING_LIFTED | SETTING_REPORT);
        assert_eq!(answer(&lifted, &users, 0), Answer::Grant);
    }

    #[test]
    fn as_many_users_as_there_is_room_for_are_told_apart() {
        let ids: Vec<u32> = (1..).take(USERS).collect();
        let users = Users::of(&ids);
        assert!(ids.iter().all(|id| users.contains(*id)));
        assert!(!users.contains(0) && !users.contains(ids[USERS - 1] + 1));
    }
}
