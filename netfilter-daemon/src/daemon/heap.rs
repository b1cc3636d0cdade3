//! Gives memory back. To load the programs and to read a large policy takes tens of megabytes
//! for a moment, and the allocator keeps what is freed beneath anything that stays. So does the
//! kernel with what that took of the program's file, which is most of it.

use std::{ffi::c_void, ptr, slice};

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

/// Called where much was freed: after a start, after each reload, and now and then.
pub(super) fn give_back() {
    trim();
    // SAFETY: the function is called with what it says, while this waits.
    unsafe { libc::dl_iterate_phdr(Some(forget), ptr::null_mut()) };
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it only touches what is free, in all arenas (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
const fn trim() {}

/// Takes code and constants of an object out of this process's memory. They stay in the page cache,
/// and what is used again comes back from there.
///
/// # Safety
/// As dl_iterate_phdr(3) calls it.
unsafe extern "C" fn forget(
    object: *mut libc::dl_phdr_info,
    _length: usize,
    _: *mut c_void,
) -> libc::c_int {
    /// As large as the pages of any machine. Inwards, for what is beside a segment is another's.
    const PAGE: u64 = 1 << 16;
    const ONLY_THE_PROGRAM: libc::c_int = 1; // it comes first
    let whole = |address: u64| usize::try_from(address / PAGE * PAGE).unwrap_or(0);
    // SAFETY: there is an object, with so many headers.
    let (base, headers) = unsafe {
        let object = &*object;
        let headers = slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        (object.dlpi_addr, headers)
    };
    // What is relocated, and constant from then on, is in a segment that can be written.
    let constant = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
    };
    for header in headers.iter().filter(constant) {
        let start = base + header.p_vaddr;
        let (start, end) = (whole(start + PAGE - 1), whole(start + header.p_memsz));
        if start < end {
            // SAFETY: what nobody can write is as the file has it, and so it comes back.
            unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    ONLY_THE_PROGRAM
}
