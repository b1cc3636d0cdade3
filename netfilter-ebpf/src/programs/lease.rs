//! Addresses learned from DNS: read and extended without a lock.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::bindings::BPF_NOEXIST;
use netfilter_ebpf::{
    abi::{
        ALIAS_GRANTS, ATOM_AUDITS, Address, Alias, Crowd, DECIDER_AUDITS, Grant, LEASE_GRANTS,
        Lease, MAX_ANSWER_ADDRESSES, NAME_IDS, Settings,
    },
    egress::Lent,
    lease::{self, Grants, Place},
};

use crate::{
    atomic::compare_exchange,
    deciders,
    maps::{ALIASES, CROWDS, LEASES, NAME_SETS, Scratch},
    message::scratch,
    remotes,
    widen::opaque,
};

const EEXIST: i32 = -17;

/// Lends the first `count` addresses of the scratch to a name. False where
/// there was no room for one of them: it opens nothing then.
#[inline(always)]
pub(crate) fn learn(count: usize, name: u32, now: u32, settings: &Settings) -> bool {
    let mut room = true;
    for index in 0..MAX_ANSWER_ADDRESSES {
        // Opaque each round, or the compiler folds both ends of the loop into
        // one that the verifier cannot follow.
        if index >= opaque(count) {
            break;
        }
        room &= netfilter_lend(
            index as u32,
            name,
            now,
            settings.minimum_ttl,
            settings.grace,
        ) != 0;
    }
    room
}

/// Adds one grant. A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_lend(index: u32, name: u32, now: u32, minimum_ttl: u32, grace: u32) -> u64 {
    let Some(Scratch {
        addresses, lease, ..
    }) = scratch()
    else {
        return 0;
    };
    let found = &addresses.found[index as usize & (MAX_ANSWER_ADDRESSES - 1)];
    let grant = lease::grant(name, found.ttl, now, minimum_ttl, grace);
    for _ in 0..3 {
        match prolong(&found.address, grant, now) {
            Prolonged::Done => return 1,
            Prolonged::NoRoom => return 0,
            Prolonged::Absent => {}
        }
        remotes::note(found.address);
        lease.address = found.address;
        lease.grants[0] = grant; // the rest of it is zero and stays so
        match LEASES.insert(found.address, &*lease, u64::from(BPF_NOEXIST)) {
            Ok(()) => return 1,
            Err(EEXIST) => {} // another processor was first: extend its lease
            Err(_) => return 0,
        }
    }
    0
}

enum Prolonged {
    Done,
    /// Others have all its grants.
    NoRoom,
    /// Nobody lends the address, or not any more.
    Absent,
}

/// What the daemon removes as expired, to make room, may be another address's at once.
/// So whoever has written to it looks whether it is still there.
#[inline(always)]
fn prolong(address: &Address, grant: Grant, now: u32) -> Prolonged {
    let Some(lease) = LEASES.get_ptr_mut(address) else {
        return Prolonged::Absent;
    };
    let grants = Words::of(lease);
    if !lease::hold(&grants, grant) {
        return match netfilter_crowd(address.high, address.low, grant.0, now) {
            DONE => Prolonged::Done,
            NO_ROOM => Prolonged::NoRoom,
            _ => Prolonged::Absent,
        };
    }
    if LEASES.get_ptr_mut(address) == Some(lease) {
        return Prolonged::Done;
    }
    lease::retract(&grants, grant);
    Prolonged::Absent
}

const ABSENT: u64 = 0;
const DONE: u64 = 1;
const NO_ROOM: u64 = 2;

/// Adds a grant to an address whose lease is full of others. The daemon removes a lease only if
/// there is no crowd, and puts it back if one comes meanwhile.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_crowd(high: u64, low: u64, grant: u64, now: u32) -> u64 {
    let (address, grant) = (Address { high, low }, Grant(grant));
    let (Some(lease), Some(scratch)) = (LEASES.get_ptr_mut(address), scratch()) else {
        return ABSENT;
    };
    let grants = Words::of(lease);
    let known = CROWDS.get_ptr_mut(address);
    let crowd = known.map(Words::of);
    match (
        lease::extend_crowded(&grants, crowd.as_ref(), grant, now),
        known,
    ) {
        (Place::Lease, _) if LEASES.get_ptr_mut(address) == Some(lease) => return DONE,
        (Place::Lease, _) => {
            lease::retract(&grants, grant);
            return ABSENT;
        }
        (Place::Crowd, Some(crowd)) => return stands(address, crowd, grant),
        (Place::NewCrowd, _) => {}
        (Place::Crowd | Place::Nowhere, _) => return NO_ROOM,
    }
    scratch.crowd.address = address;
    scratch.crowd.grants[0] = grant; // the rest of it is zero and stays so
    match CROWDS.insert(address, &scratch.crowd, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            // Nothing but a barrier: the look must come behind the insertion.
            compare_exchange(&raw mut scratch.crowd.grants[0].0, grant.0, grant.0);
            u64::from(LEASES.get_ptr_mut(address).is_some())
        }
        Err(EEXIST) => ABSENT, // another processor was first
        Err(_) => NO_ROOM,
    }
}

/// Whether the grant is where egress finds it.
#[inline(always)]
fn stands(address: Address, crowd: *mut Crowd, grant: Grant) -> u64 {
    if CROWDS.get_ptr_mut(address) != Some(crowd) {
        lease::retract(&Words::of(crowd), grant);
        return ABSENT;
    }
    u64::from(LEASES.get_ptr_mut(address).is_some())
}

/// The words of a map value.
struct Words<const COUNT: usize>(*mut u64);

impl<const COUNT: usize> Words<COUNT> {
    #[inline(always)]
    fn of(lease: *mut Lease<COUNT>) -> Self {
        // SAFETY: a map value.
        Self(unsafe { &raw mut (*lease).grants }.cast())
    }
}

impl<const N: usize> Grants for Words<N> {
    const COUNT: usize = N;

    #[inline(always)]
    fn load(&self, index: usize) -> Grant {
        // SAFETY: within the array; other processors replace the word whole.
        Grant(unsafe { self.0.add(index).read_volatile() })
    }

    #[inline(always)]
    fn replace(&self, index: usize, old: Grant, new: Grant) -> bool {
        // SAFETY: within the array.
        compare_exchange(unsafe { self.0.add(index) }, old.0, new.0)
    }
}

/// Lets a name be asked for on behalf of another. `fresh` is zero and stays so;
/// `inserted` counts what the caller shall note, once for all.
#[inline(always)]
pub(crate) fn lend_alias(
    key: u64,
    grant: Grant,
    fresh: &mut Alias,
    now: u32,
    inserted: &mut u64,
) -> bool {
    for _ in 0..2 {
        if let Some(alias) = ALIASES.get_ptr_mut(&key) {
            // SAFETY: a map value.
            let grants = unsafe { &raw mut (*alias).grants }.cast::<u64>();
            let room = lease::extend(&Words::<ALIAS_GRANTS>(grants), grant, now);
            if ALIASES.get_ptr_mut(&key) == Some(alias) {
                return room;
            }
            lease::retract(&Words::<ALIAS_GRANTS>(grants), grant);
            continue;
        }
        fresh.key = key;
        fresh.grants[0] = grant;
        match ALIASES.insert(&key, &*fresh, u64::from(BPF_NOEXIST)) {
            Ok(()) => {
                *inserted += 1;
                return true;
            }
            Err(EEXIST) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Whether an alias may be asked for on behalf of a name that the policy allows.
#[inline(always)]
pub(crate) fn allows_alias(key: u64, now: u32, slot: u32) -> bool {
    netfilter_allows_alias(key, now, slot) != 0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_allows_alias(key: u64, now: u32, slot: u32) -> u64 {
    // SAFETY: as in `netfilter_leased`.
    let Some(alias) = (unsafe { ALIASES.get(&key) }) else {
        return 0;
    };
    let grants = |name: u32| {
        NAME_SETS
            .get(slot * NAME_IDS + (name & (NAME_IDS - 1)))
            .is_some_and(|set| set.words.iter().fold(0, |all, word| all | word) != 0)
    };
    let granted = lease::in_force(&alias.grants, now, grants).is_some();
    compiler_fence(Ordering::SeqCst);
    // SAFETY: as above.
    u64::from(granted && unsafe { (&raw const alias.key).read_volatile() } == key)
}

/// What names lend an address for the atom now.
#[inline(always)]
pub(crate) fn find(address: Address, atom: u8, now: u32, slot: u32) -> Option<Lent> {
    let atom_and_slot = u64::from(atom) | u64::from(slot) << 8;
    match netfilter_leased(address.high, address.low, now, atom_and_slot) {
        0 => None,
        grant if grant & AUDITED != 0 => Some(Lent::Audited(Grant(grant & !AUDITED))),
        grant => Some(Lent::Allowed(Grant(grant))),
    }
}

/// Beside a grant, whose name's id does not reach here.
const AUDITED: u64 = 1 << 63;
const _: () = assert!(Grant::new(NAME_IDS, 0).0 < AUDITED);

/// Whether a name grants the atom in a copy of the policy.
#[inline(always)]
pub(crate) fn name_allows(slot: u32, name: u32, atom: u8) -> bool {
    NAME_SETS
        .get(slot * NAME_IDS + (name & (NAME_IDS - 1)))
        .is_some_and(|set| set.contains(atom))
}

/// Whether it audits the atom.
#[inline(always)]
pub(crate) fn name_audits(slot: u32, name: u32, atom: u8) -> bool {
    name_allows(slot, name, ATOM_AUDITS) && netfilter_audits(slot, name, u32::from(atom)) != 0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_audits(slot: u32, name: u32, atom: u32) -> u64 {
    let first = deciders::of_name(name, slot);
    u64::from(deciders::find(first, DECIDER_AUDITS, atom as u8).is_some())
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_leased(high: u64, low: u64, now: u32, atom_and_slot: u64) -> u64 {
    let address = Address { high, low };
    // SAFETY: the memory stays a value of this map (RCU), if perhaps another
    // address's; words are replaced whole.
    let Some(lease) = (unsafe { LEASES.get(address) }) else {
        return 0;
    };
    let (atom, slot) = (atom_and_slot as u8, (atom_and_slot >> 8) as u32);
    let allows = |name| name_allows(slot, name, atom);
    if let Some(grant) = lease::in_force(&lease.grants, now, allows) {
        return if is_still(lease, address) { grant.0 } else { 0 };
    }
    if is_crowded(lease)
        // SAFETY: as above.
        && let Some(crowd) = unsafe { CROWDS.get(address) }
        && let Some(grant) = lease::in_force(&crowd.grants, now, allows)
        && is_still(crowd, address)
    {
        return grant.0;
    }
    netfilter_audited(high, low, now, atom_and_slot)
}

/// A grant that is only audited, and marked so. For what no name allows.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_audited(high: u64, low: u64, now: u32, atom_and_slot: u64) -> u64 {
    let address = Address { high, low };
    // SAFETY: as in `netfilter_leased`.
    let Some(lease) = (unsafe { LEASES.get(address) }) else {
        return 0;
    };
    let (atom, slot) = (atom_and_slot as u8, (atom_and_slot >> 8) as u32);
    let audits = |name| name_audits(slot, name, atom);
    if let Some(grant) = lease::in_force(&lease.grants, now, audits)
        && is_still(lease, address)
    {
        return grant.0 | AUDITED;
    }
    if is_crowded(lease)
        // SAFETY: as above.
        && let Some(crowd) = unsafe { CROWDS.get(address) }
        && let Some(grant) = lease::in_force(&crowd.grants, now, audits)
        && is_still(crowd, address)
    {
        return grant.0 | AUDITED;
    }
    0
}

/// Whether there may be more than what stands with the address.
#[inline(always)]
fn is_crowded(lease: &Lease) -> bool {
    // SAFETY: within the value.
    unsafe { (&raw const lease.grants[LEASE_GRANTS - 1].0).read_volatile() != 0 }
}

/// A new value's address is written before its grants, so it is read behind them.
#[inline(always)]
fn is_still<const COUNT: usize>(lease: &Lease<COUNT>, address: Address) -> bool {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: within the value.
    unsafe { (&raw const lease.address).read_volatile() == address }
}
