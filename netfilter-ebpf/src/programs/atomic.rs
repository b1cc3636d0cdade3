//! Atomic operations. Rust has none for BPF; the instruction is there since Linux 5.12.

/// Adds one to the counter at `slot`.
#[inline(always)]
pub(crate) fn increment(slot: *mut u64) {
    // SAFETY: `slot` is a word of a map value.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({slot} + 0) += {one}",
            slot = in(reg) slot,
            one = in(reg) 1u64,
        );
    }
}

/// Sets bits of the word at `slot`. A full barrier, as all that return what was there before.
#[inline(always)]
pub(crate) fn set(slot: *mut u64, bits: u64) {
    // SAFETY: `slot` is a word of a map value.
    unsafe {
        core::arch::asm!(
            "{bits} = atomic_fetch_or((u64 *)({slot} + 0), {bits})",
            slot = in(reg) slot,
            bits = inout(reg) bits => _,
        );
    }
}

/// Replaces the word at `slot` if it is `old`. A full barrier.
#[inline(always)]
pub(crate) fn compare_exchange(slot: *mut u64, old: u64, new: u64) -> bool {
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
