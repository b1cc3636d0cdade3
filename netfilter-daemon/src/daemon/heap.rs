//! Gives memory back. To load the programs and to read a large policy takes tens of megabytes
//! for a moment, and the allocator keeps what is freed beneath anything that stays.

/// All threads allocate in one place, at whose end what is free goes back to the system; of the
/// places that threads have of their own, the end stays. To be called before there are threads.
#[cfg(target_env = "gnu")]
pub fn share() {
    // SAFETY: a setting of the allocator (mallopt(3)).
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub const fn share() {}

/// Called where much was freed: after a start, and after each reload.
#[cfg(target_env = "gnu")]
pub(super) fn give_back() {
    // SAFETY: it only touches what is free, in all arenas (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) const fn give_back() {}
