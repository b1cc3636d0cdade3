//! Addresses learned from DNS: read and extended without a lock.

use aya_ebpf::bindings::BPF_NOEXIST;
use netfilter_ebpf::{
    abi::{Address, GRANTS, Grant, MAX_ANSWER_ADDRESSES, NAME_IDS, Settings},
    egress,
};

use crate::{
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
    let life = found.ttl.max(minimum_ttl).saturating_add(grace);
    // The second that has begun does not count, or a life could end up to one too soon.
    let grant = Grant::new(name, now.saturating_add(1).saturating_add(life));
    for _ in 0..2 {
        if let Some(lease) = LEASES.get_ptr_mut(found.address) {
            // SAFETY: a map value.
            let grants = unsafe { &raw mut (*lease).grants }.cast::<u64>();
            return u64::from(extend(grants, grant, now));
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

/// Grants fill from the front and never become zero again, so a zero is the end.
#[inline(always)]
fn extend(grants: *mut u64, new: Grant, now: u32) -> bool {
    for index in 0..GRANTS {
        // SAFETY: within the array.
        let slot = unsafe { grants.add(index) };
        // SAFETY: as above; other processors replace the word whole.
        let old = Grant(unsafe { slot.read_volatile() });
        if old.name() == new.name() || old.0 == 0 {
            if old.until() >= new.until() && old.0 != 0 {
                return true;
            }
            if compare_exchange(slot, old.0, new.0) {
                return true;
            }
        }
    }
    for index in 0..GRANTS {
        // SAFETY: within the array.
        let slot = unsafe { grants.add(index) };
        // SAFETY: as above.
        let old = unsafe { slot.read_volatile() };
        if Grant(old).until() <= now && compare_exchange(slot, old, new.0) {
            return true;
        }
    }
    false
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
    egress::grant_in_force(&lease.grants, now, |name| name_allows(slot, name, atom))
        .map_or(0, |grant| grant.0)
}

/// Rust has no atomics for BPF; the instruction is there since Linux 5.12.
#[inline(always)]
fn compare_exchange(slot: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: `slot` is a word of a map value.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({slot} + 0, r0, {new})",
            slot = in(reg) slot,
            new = in(reg) new,
            inlateout("r0") old => found,
        );
    }
    found == old
}
