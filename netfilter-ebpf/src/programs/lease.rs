//! Addresses learned from DNS: read and extended without a lock.

use aya_ebpf::bindings::BPF_NOEXIST;
use netfilter_ebpf::{
    abi::{Address, Grant, MAX_ANSWER_ADDRESSES, NAME_IDS, Settings},
    lease::{self, Grants},
};

use crate::{
    atomic::compare_exchange,
    clock,
    maps::{LEASES, NAME_SETS, Scratch},
    message::scratch,
    widen::opaque,
};

const EEXIST: i32 = -17;

/// Lends the first `count` addresses of the scratch to a name. False where
/// there was no room for one of them: it opens nothing then.
#[inline(always)]
pub(crate) fn learn(count: usize, name: u32, settings: &Settings) -> bool {
    let now = clock::now();
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
        if let Some(lease) = LEASES.get_ptr_mut(found.address) {
            // SAFETY: a map value.
            let grants = unsafe { &raw mut (*lease).grants }.cast::<u64>();
            if !lease::extend(&Words(grants), grant, now) {
                return 0;
            }
            // Still there? Or the daemon, to make room, removed it as expired meanwhile.
            if LEASES.get_ptr_mut(found.address) == Some(lease) {
                return 1;
            }
            continue;
        }
        lease.grants[0] = grant; // the rest of it is zero and stays so
        match LEASES.insert(found.address, &*lease, u64::from(BPF_NOEXIST)) {
            Ok(()) => return 1,
            Err(EEXIST) => {} // another processor was first: extend its lease
            Err(_) => return 0,
        }
    }
    0
}

/// The words of a lease in the map.
struct Words(*mut u64);

impl Grants for Words {
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

/// The grant of the atom to an address that is in force.
#[inline(always)]
pub(crate) fn find(address: Address, atom: u8, now: u32, slot: u32) -> Option<Grant> {
    let grant = netfilter_leased(
        address.high,
        address.low,
        now,
        u64::from(atom) | u64::from(slot) << 8,
    );
    (grant != 0).then_some(Grant(grant))
}

/// Whether a name grants the atom in a copy of the policy.
#[inline(always)]
pub(crate) fn name_allows(slot: u32, name: u32, atom: u8) -> bool {
    NAME_SETS
        .get(slot * NAME_IDS + (name & (NAME_IDS - 1)))
        .is_some_and(|set| set.contains(atom))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_leased(high: u64, low: u64, now: u32, atom_and_slot: u64) -> u64 {
    // SAFETY: values of this map live until the program ends (RCU), and their
    // words are replaced whole.
    let Some(lease) = (unsafe { LEASES.get(Address { high, low }) }) else {
        return 0;
    };
    let (atom, slot) = (atom_and_slot as u8, (atom_and_slot >> 8) as u32);
    lease::in_force(&lease.grants, now, |name| name_allows(slot, name, atom))
        .map_or(0, |grant| grant.0)
}
