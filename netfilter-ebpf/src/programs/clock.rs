//! The clock of every time in the maps: it does not jump, and goes on in suspend.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;

/// Seconds of CLOCK_BOOTTIME.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_ktime_get_boot_ns() } / 1_000_000_000) as u32
}
