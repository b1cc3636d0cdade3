//! Grants of learned addresses: what a name lends an address, and until when.

use crate::abi::Grant;

/// The grants of one lease, which several processors read and replace at once,
/// each word whole. They fill from the front and never become zero again, so a
/// zero is the end.
pub trait Grants {
    const COUNT: usize;
    /// `index` is below [`Self::COUNT`].
    fn load(&self, index: usize) -> Grant;
    /// Stores `new` if `old` still stands there.
    fn replace(&self, index: usize, old: Grant, new: Grant) -> bool;
}

/// What a record with this TTL lends, if it comes at `now`.
#[must_use]
#[inline(always)]
pub const fn grant(name: u32, ttl: u32, now: u32, minimum_ttl: u32, grace: u32) -> Grant {
    let life = if ttl < minimum_ttl { minimum_ttl } else { ttl };
    // The second that has begun does not count, or a life could end up to one too soon.
    let until = now
        .saturating_add(1)
        .saturating_add(life)
        .saturating_add(grace);
    Grant::new(name, until)
}

/// Adds a grant, or prolongs that of the same name; no other name's is
/// changed. False where there is no room.
#[inline(always)]
pub fn extend<G: Grants>(grants: &G, new: Grant, now: u32) -> bool {
    hold(grants, new) || follow(grants, new, now)
}

/// Prolongs the grant of the same name, or adds one where none ever was.
#[inline(always)]
pub fn hold<G: Grants>(grants: &G, new: Grant) -> bool {
    for index in 0..G::COUNT {
        let old = grants.load(index);
        if old.name() == new.name() || old.0 == 0 {
            if old.until() >= new.until() && old.0 != 0 {
                return true;
            }
            if grants.replace(index, old, new) {
                return true;
            }
        }
    }
    false
}

/// Puts a grant where one was whose time has passed.
#[inline(always)]
pub fn follow<G: Grants>(grants: &G, new: Grant, now: u32) -> bool {
    for index in 0..G::COUNT {
        let old = grants.load(index);
        if old.until() <= now && grants.replace(index, old, new) {
            return true;
        }
    }
    false
}

/// Where a grant went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Lease,
    Crowd,
    /// It is to be the first of a crowd.
    NewCrowd,
    /// All are others', and in force.
    Nowhere,
}

/// As [`extend`], for an address whose lease did not [`hold`] the grant.
#[inline(always)]
pub fn extend_crowded<L: Grants, C: Grants>(
    lease: &L,
    crowd: Option<&C>,
    new: Grant,
    now: u32,
) -> Place {
    if crowd.is_some_and(|crowd| hold(crowd, new)) {
        return Place::Crowd;
    }
    if follow(lease, new, now) {
        return Place::Lease;
    }
    match crowd {
        None => Place::NewCrowd,
        Some(crowd) if follow(crowd, new, now) => Place::Crowd,
        Some(_) => Place::Nowhere,
    }
}

/// Takes a grant back that went to the wrong place. Its slot is free again.
#[inline(always)]
pub fn retract<G: Grants>(grants: &G, wrong: Grant) {
    for index in 0..G::COUNT {
        if grants.load(index) == wrong {
            grants.replace(index, wrong, Grant::new(wrong.name(), 0));
        }
    }
}

/// The grant among `grants` that is in force at `now` and grants the atom, by
/// what `allows` says of a name's id.
#[inline(always)]
pub fn in_force(grants: &[Grant], now: u32, allows: impl Fn(u32) -> bool) -> Option<Grant> {
    for &grant in grants {
        if grant.0 == 0 {
            return None;
        }
        if grant.until() > now && allows(grant.name()) {
            return Some(grant);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap};

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::abi::{CROWD_GRANTS, GRANTS, LEASE_GRANTS};

    #[derive(Debug, Clone)]
    enum Act {
        Learn { name: u32, ttl: u32 },
        Advance(u32),
        Ask { atom: u8 },
    }

    /// More names than an address can hold grants.
    const NAMES: u32 = 40;
    const _: () = assert!(NAMES as usize > GRANTS);
    const GRACE: u32 = 5;
    const MINIMUM_TTL: u32 = 10;

    fn acts() -> impl Strategy<Value = Act> {
        let names = prop_oneof![1 => 1..5_u32, 3 => 1..=NAMES];
        let learn = (names, prop_oneof![0..20_u32, 0..200_u32]);
        prop_oneof![
            12 => learn.prop_map(|(name, ttl)| Act::Learn { name, ttl }),
            1 => prop_oneof![3 => Just(1), 1 => 0..20_u32].prop_map(Act::Advance),
            2 => (0..8_u8).prop_map(|atom| Act::Ask { atom }),
        ]
    }

    struct Words<const COUNT: usize>(RefCell<[Grant; COUNT]>);

    impl<const COUNT: usize> Words<COUNT> {
        fn free() -> Self {
            Self(RefCell::new([Grant::default(); COUNT]))
        }

        fn in_force(&self, now: u32, allows: impl Fn(u32) -> bool) -> Option<Grant> {
            in_force(&*self.0.borrow(), now, allows)
        }
    }

    #[derive(Default)]
    struct Address {
        lease: Option<Words<LEASE_GRANTS>>,
        crowd: Option<Words<CROWD_GRANTS>>,
    }

    impl Address {
        fn learn(&mut self, new: Grant, now: u32) -> bool {
            let lease = self.lease.get_or_insert_with(Words::free);
            if hold(lease, new) {
                return true;
            }
            match extend_crowded(lease, self.crowd.as_ref(), new, now) {
                Place::Lease | Place::Crowd => true,
                Place::NewCrowd => hold(self.crowd.insert(Words::free()), new),
                Place::Nowhere => false,
            }
        }

        fn find(&self, now: u32, allows: impl Fn(u32) -> bool) -> Option<Grant> {
            let lease = self.lease.as_ref()?;
            let crowd = || self.crowd.as_ref()?.in_force(now, &allows);
            lease.in_force(now, &allows).or_else(crowd)
        }
    }

    impl<const COUNT: usize> Grants for Words<COUNT> {
        const COUNT: usize = COUNT;

        fn load(&self, index: usize) -> Grant {
            self.0.borrow()[index]
        }

        fn replace(&self, index: usize, old: Grant, new: Grant) -> bool {
            let mut grants = self.0.borrow_mut();
            let stands = grants[index] == old;
            if stands {
                grants[index] = new;
            }
            stands
        }
    }

    proptest! {
        /// The model: of each name, until when it lends the address.
        #[test]
        fn names_that_share_an_address_keep_their_ports_and_their_times_apart(
            acts in vec(acts(), 1..300),
            // The atoms of each name.
            sets in vec(any::<u8>(), NAMES as usize + 1),
        ) {
            let mut address = Address::default();
            let mut model = BTreeMap::<u32, u32>::new();
            let mut now = 1000;
            let allows = |name: u32, atom: u8| sets[name as usize] >> atom & 1 == 1;
            for act in acts {
                match act {
                    Act::Learn { name, ttl } => {
                        let new = grant(name, ttl, now, MINIMUM_TTL, GRACE);
                        let until = now + 1 + ttl.max(MINIMUM_TTL) + GRACE;
                        model.retain(|_, until| *until > now);
                        let room = model.len() < GRANTS || model.contains_key(&name);
                        prop_assert_eq!(address.learn(new, now), room);
                        if room {
                            let known = model.entry(name).or_insert(until);
                            *known = until.max(*known);
                        }
                    }
                    Act::Advance(seconds) => now += seconds,
                    Act::Ask { atom } => {
                        let found = address.find(now, |name| allows(name, atom));
                        let granted = |(&name, &until): (&u32, &u32)| until > now && allows(name, atom);
                        prop_assert_eq!(found.is_some(), model.iter().any(granted));
                        if let Some(found) = found {
                            prop_assert!(allows(found.name(), atom));
                            prop_assert_eq!(model.get(&found.name()), Some(&found.until()));
                        }
                    }
                }
            }
        }
    }
}
