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
    for index in 0..G::COUNT {
        let old = grants.load(index);
        if old.until() <= now && grants.replace(index, old, new) {
            return true;
        }
    }
    false
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
