//! By which paths a process is known: climbed when it is first seen, in its own context, and kept
//! for all of its sockets. Those of processes that have asked for none for the longest are forgotten.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_task};
use netfilter_ebpf::abi::{PATH, Path, Paths, PathsKey};

use crate::{
    atomic,
    climb::{self, layout, word},
    maps::PATHS,
};

static NONE: Paths = Paths::NONE;

/// Remembers those of the process that this program serves. Who is first climbs.
#[inline(always)]
pub(crate) fn note(key: &PathsKey) {
    if layout!(known) == 0
        || PATHS.get_ptr(key).is_some()
        || PATHS.insert(key, &NONE, u64::from(BPF_NOEXIST)).is_err()
    {
        return;
    }
    let Some(paths) = PATHS.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a map value, which nobody else writes to, or reads before it is whole; a helper without arguments.
    let (paths, task) = unsafe { (&mut *paths, bpf_get_current_task() as u64) };
    paths.key = *key;
    let file = word(word(task + layout!(task_mm)) + layout!(mm_file));
    let path = file + layout!(file_path);
    let mount = word(path + layout!(path_mount));
    let dentry = word(path + layout!(path_dentry));
    climb::files(&mut paths.executable, dentry, mount);
    let cgroup = word(word(task + layout!(task_cgroups)) + layout!(css_cgroup));
    climb::cgroups(&mut paths.cgroup, word(cgroup + layout!(cgroup_node)));
    atomic::compare_exchange(&raw mut paths.whole, 0, 1);
}

/// Whether they are remembered, and were copied.
#[inline(always)]
pub(crate) fn recall(key: &PathsKey, to: &mut Paths) -> bool {
    let Some(noted) = PATHS.get_ptr(key) else {
        return false;
    };
    // What is forgotten meanwhile becomes another's: its first word is written first.
    if !is_of(noted, key) {
        return false;
    }
    // SAFETY: fields of a map value.
    let (executable, cgroup) =
        unsafe { (&raw const (*noted).executable, &raw const (*noted).cgroup) };
    copy(executable, &mut to.executable);
    copy(cgroup, &mut to.cgroup);
    is_of(noted, key)
}

#[inline(always)]
fn is_of(noted: *const Paths, key: &PathsKey) -> bool {
    // SAFETY: parts of a map value; volatile, for they may change.
    unsafe {
        (&raw const (*noted).whole).read_volatile() != 0
            && (&raw const (*noted).key).read_volatile() == *key
    }
}

#[inline(always)]
fn copy(from: *const Path, to: &mut Path) {
    // SAFETY: a part of a map value. What is read may be changing; whoever asked looks again.
    unsafe {
        to.length = (&raw const (*from).length).read_volatile();
        to.cut = (*from).cut & 1;
        let text = (&raw const (*from).text).cast();
        copy_text(text, to.text.as_mut_ptr(), to.length);
    }
}

/// Copies a path's text as far as it counts, in steps of 64 bytes.
///
/// # Safety
/// Both have room for the longest, are at multiples of eight bytes, and apart: a call of `memmove`,
/// which others need, would take as long as all else that tells who sends.
#[inline(always)]
pub(crate) unsafe fn copy_text(from: *const u8, to: *mut u8, length: u16) {
    const STEP: usize = 64;
    let (from, to) = (from.cast::<[u64; STEP / 8]>(), to.cast::<[u64; STEP / 8]>());
    for step in 0..PATH / STEP {
        if usize::from(length) > step * STEP {
            // SAFETY: the caller's room.
            unsafe { core::ptr::copy_nonoverlapping(from.add(step), to.add(step), 1) };
        }
    }
}
