//! Gives memory back. To load the programs and to read a large policy takes tens of megabytes
//! for a moment, and the allocator keeps what is freed beneath anything that stays.

/// Called where much was freed: after a start, and after each reload.
#[cfg(target_env = "gnu")]
pub(super) fn give_back() {
    // SAFETY: it only touches what is free, in all arenas (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) const fn give_back() {}
