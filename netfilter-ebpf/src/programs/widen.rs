//! Makes the verifier forget the range of a number, or see it.

/// A global function: the verifier checks it once, by itself, and at each call
/// takes its result for any number at all.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_widen(number: u64) -> u64 {
    let mut number = number;
    // SAFETY: no instruction at all; the compiler may not see through it.
    unsafe { core::arch::asm!("", inout("r0") number => number) };
    number
}

#[inline(always)]
pub(crate) fn widen(number: usize) -> usize {
    netfilter_widen(number as u64) as usize
}

/// The same number. The verifier of Linux 6.1 does not know how long it is once its bytes were
/// exchanged, and the compiler, which does, leaves it at that.
#[inline(always)]
pub(crate) fn bounded(number: u16) -> u16 {
    opaque(usize::from(number)) as u16
}

/// The same number, of which the compiler knows nothing.
#[inline(always)]
pub(crate) fn opaque(number: usize) -> usize {
    let mut number = number as u64;
    // SAFETY: plain arithmetic; an instruction, for two lines of debug information
    // must not stand at one.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) number) };
    number as usize
}
