//! What leases granted a moment ago, of this processor: so that a packet of a connection to
//! a learned address is let out without a look at the table of leases.
//!
//! Within one generation a grant stays until its time is over. What could be read of a lease
//! that changed hands at that moment is forgotten with the second, as everything is. Places
//! are few and found by the address: what needs the place takes it.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use netfilter_ebpf::{
    abi::{Address, Grant},
    egress::Lent,
};

use crate::{flow::NEARLY_EXPIRED, lease, tables::Generation};

const PLACES: u32 = 256;

#[repr(C)]
struct Memo {
    address: Address,
    /// See [`about`]; zero is nobody's.
    about: u64,
    grant: Grant,
}

/// Of the programs that were loaded with it, so it has no layout that others could know.
#[map]
static MEMOS: PerCpuArray<Memo> = PerCpuArray::with_max_entries(PLACES, 0);

/// As [`lease::find`].
#[inline(always)]
pub(crate) fn find(address: Address, atom: u8, now: u32, generation: &Generation) -> Option<Lent> {
    let about = about(atom, now, generation);
    let hash = (address.high ^ address.low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let memo = MEMOS.get_ptr_mut((hash >> 56) as u32)?;
    // SAFETY: a map value of this processor, and none interrupts a tc program but others'.
    let memo = unsafe { &mut *memo };
    let lasts = |grant: Grant| grant.until() >= now.saturating_add(NEARLY_EXPIRED);
    if memo.about == about
        && memo.address.low == address.low
        && memo.address.high == address.high
        && lasts(memo.grant)
    {
        return Some(Lent::Allowed(memo.grant));
    }
    let lent = lease::find(address, atom, now, generation.slot())?;
    // What ends soon is looked up each time, for it may have been prolonged.
    if let Lent::Allowed(grant) = lent
        && lasts(grant)
    {
        memo.about = about;
        memo.address = address;
        memo.grant = grant;
    }
    Some(lent)
}

/// By which policy, for which ports, and when: of the second as many bits as there is room
/// for. Never zero.
#[inline(always)]
fn about(atom: u8, now: u32, generation: &Generation) -> u64 {
    let second = u64::from(now & 0x7f_ffff);
    u64::from(Generation::number()) << 32
        | second << 9
        | u64::from(generation.slot()) << 8
        | u64::from(atom)
}
