//! The clock of every time in the maps: it does not jump, and goes on in suspend.

use aya_ebpf::{
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns},
    macros::map,
    maps::PerCpuArray,
};

/// What the clock said in this tick.
#[repr(C)]
struct Tick {
    jiffies: u64,
    seconds: u64,
}

#[map]
static TICK: PerCpuArray<Tick> = PerCpuArray::with_max_entries(1, 0);

/// Seconds of CLOCK_BOOTTIME, to a tick of the kernel: reading its clock takes as long as
/// judging a packet. For programs that none interrupts which does the same; see
/// `maps::Scratch`.
#[inline(always)]
pub(crate) fn now() -> u32 {
    let Some(tick) = TICK.get_ptr_mut(0) else {
        return read();
    };
    // SAFETY: a helper without arguments, and a map value of this processor.
    unsafe {
        let jiffies = bpf_jiffies64();
        if (*tick).jiffies != jiffies {
            (*tick).seconds = u64::from(read());
            (*tick).jiffies = jiffies;
        }
        (*tick).seconds as u32
    }
}

/// The same, read anew.
#[inline(always)]
pub(crate) fn read() -> u32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_ktime_get_boot_ns() } / 1_000_000_000) as u32
}
